"""The linear layers of a language model in blocks, one transformer layer after another.

Each layer is fitted to what it reads from the layers before it as they are by then: already in integers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from compress.config.quantize import Clip, Rounding
from compress.models.stored import in_float32
from compress.models.walk import SharedInput, Walk
from compress.quantize.blocks import Blocks, in_blocks
from compress.quantize.fidelity import EVERY
from compress.quantize.gptq import gptq
from compress.quantize.language_layers import HEAD, changed_embedding, changed_weights, is_tied
from compress.quantize.sqnr import sqnr_db
from compress.schema.quantization import LayerError
from compress.tasks.language_modeling.model import CausalLM

_ERROR_WINDOWS = 2  # windows for the error of each layer

_STRENGTHS = tuple(step / 10 for step in range(10))  # of AWQ; 0 is off


@dataclass(frozen=True, kw_only=True)
class Recipe:
    bits: Mapping[str, int]  # of each linear layer; one that is not here stays in float
    size: int
    method: Rounding = Rounding.rtn
    clip: Clip = Clip.none
    awq: bool = False

    @property
    def fitted(self) -> bool:
        """Whether the rounding depends on the inputs."""
        return self.method is Rounding.gptq or self.clip is Clip.hessian or self.awq


@dataclass(frozen=True, kw_only=True)
class Rounded:
    """Layers that were rounded together."""

    blocks: dict[str, Blocks] = field(default_factory=dict)
    # Layers that read one tensor -> factors (channels,) in their weights, to be taken out of the tensor.
    factors: dict[tuple[str, ...], Tensor] = field(default_factory=dict)


@torch.no_grad()
def round_layers(
    model: CausalLM,
    windows: Tensor,
    recipe: Recipe,
    table: Blocks | None,
    put: Callable[[Rounded], None],
) -> list[LayerError]:
    """Round the linear layers of `model`: the head first, which is the embedding of a tied model, then each
    transformer layer in turn. `windows` are tokens (windows, tokens), `table` the embedding in blocks.

    `put` gets what was rounded as soon as it is; the model has its own weights again, so that the blocks of
    one layer at a time are in memory.
    """
    head, low_head = model.linears()[HEAD], _low_head(model, recipe)
    if low_head is not None:
        put(Rounded(blocks={HEAD: low_head}))
    with changed_embedding(model, table):
        dense = Walk(model, windows[:_ERROR_WINDOWS])
    with changed_embedding(model, low_head if is_tied(model) else table):
        walk = Walk(model, windows)
    errors = []
    for index, layer in enumerate(model.stack.layers()):
        expected = dense.outputs(index)
        dense.advance(index)
        done, own = Rounded(), {linear: linear.weight.data for linear in walk.linears(index)}
        for shared in walk.second_moments(index) if recipe.fitted else walk.inputs(index):
            normed = layer.query in shared.linears or layer.ffn_in in shared.linears
            _round_readers(shared, recipe, done, normed)
        rounded = walk.outputs(index, _ERROR_WINDOWS)
        errors += [
            _error(name, model.linears()[name], *expected[name], rounded[name][1])
            for name in expected
            if name in done.blocks
        ]
        walk.advance(index)
        for linear, weight in own.items():
            linear.weight.data = weight
        put(done)
    if low_head is not None:
        x, rounded_x = (one.final(one.states[:1, ::EVERY]) for one in (dense, walk))
        y = x @ in_float32(head.weight).T
        with changed_weights([head], lambda _: low_head.weight()):
            errors.append(_error(HEAD, head, x, y, rounded_x @ head.weight.T))
    return errors


def _low_head(model: CausalLM, recipe: Recipe) -> Blocks | None:
    """To nearest: in a tied model its rows are also the embedding, which is no product."""
    if HEAD not in recipe.bits:
        return None
    clip = recipe.clip is not Clip.none and recipe.bits[HEAD] == 4
    return in_blocks(model.linears()[HEAD].weight.detach(), recipe.bits[HEAD], recipe.size, clip)


def _round_readers(shared: SharedInput, recipe: Recipe, done: Rounded, normed: bool) -> None:
    """Those layers of them that have bits; they share the factors of AWQ."""
    linears = {n: one for n, one in zip(shared.names, shared.linears, strict=True) if n in recipe.bits}
    factors = torch.ones(shared.linears[0].in_features)
    low = [one.weight.detach() for name, one in linears.items() if recipe.bits[name] < 8]
    if recipe.awq and normed and low and len(linears) == len(shared.linears):
        factors = _awq(low, shared, recipe)
        if not bool((factors == 1).all()):
            done.factors[shared.names] = factors
    moment = shared.moment / torch.outer(factors, factors) if recipe.fitted else None
    for name, linear in linears.items():
        blocks = _in_blocks(linear.weight.detach() * factors, recipe.bits[name], moment, recipe)
        done.blocks[name] = blocks
        linear.weight.data = blocks.weight() / factors


def _in_blocks(weight: Tensor, bits: int, moment: Tensor | None, recipe: Recipe) -> Blocks:
    if bits == 8:  # so fine a grid gains nothing from a search
        return in_blocks(weight, bits, recipe.size)
    if recipe.method is Rounding.gptq:
        assert moment is not None
        return gptq(weight, moment, bits, recipe.size, recipe.clip)
    importance = moment.diagonal() if moment is not None and recipe.clip is Clip.hessian else None
    return in_blocks(weight, bits, recipe.size, recipe.clip is not Clip.none, importance)


def _awq(weights: list[Tensor], shared: SharedInput, recipe: Recipe) -> Tensor:
    """Factors mean|x|^strength, the strength being that with the least error of the outputs.

    Lin et al., "AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration", MLSys 2024
    (https://arxiv.org/abs/2306.00978). The root of the mean square stands for the mean size.
    """
    size = shared.moment.diagonal().sqrt().clamp(min=1e-5)
    best, factors = float("inf"), torch.ones_like(size)
    for strength in _STRENGTHS:
        tried = size**strength
        tried = tried / (tried.max() * tried.min()).sqrt()
        error = 0.0
        for weight in weights:
            blocks = in_blocks(weight * tried, 4, recipe.size, recipe.clip is not Clip.none)
            lost = blocks.weight() / tried - weight
            error += float(((lost @ shared.moment) * lost).sum())
        if error < best:
            best, factors = error, tried if strength else torch.ones_like(size)
    return factors


def _error(name: str, linear: nn.Linear, x: Tensor, y: Tensor, rounded: Tensor) -> LayerError:
    """`y` of the float layer on `x`, `rounded` in the whole integer model."""
    alone = linear(x)
    signal = float(y.double().square().sum())
    return LayerError(
        node=name,
        sqnr_db=sqnr_db(signal, float((rounded - y).double().square().sum())),
        alone_db=sqnr_db(signal, float((alone - y).double().square().sum())),
    )
