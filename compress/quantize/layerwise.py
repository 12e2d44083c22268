"""The linear layers of a language model in blocks, one transformer layer after another.

Each layer is fitted to what it reads from the layers before it as they are by then: already in integers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from compress.config.quantize import Clip, Rounding
from compress.models.walk import SharedInput, Walk
from compress.quantize.blocks import Blocks, in_blocks
from compress.quantize.fidelity import EVERY
from compress.quantize.gptq import gptq
from compress.quantize.language_layers import HEAD, embedding_of, is_tied
from compress.quantize.sqnr import sqnr_db
from compress.schema.report import LayerError
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
    blocks: dict[str, Blocks] = field(default_factory=dict)
    # Layers that read one tensor -> factors (channels,) in their weights, to be taken out of the tensor.
    factors: dict[tuple[str, ...], Tensor] = field(default_factory=dict)
    errors: list[LayerError] = field(default_factory=list)


@torch.no_grad()
def round_layers(model: CausalLM, windows: Tensor, recipe: Recipe) -> Rounded:
    """Round the linear layers of `model` (a CausalLM) in place: head and tied embedding first, then each
    transformer layer in turn. `windows` are tokens (windows, tokens).
    """
    done = Rounded()
    dense = Walk(model, windows[:_ERROR_WINDOWS])
    head = model.linears()[HEAD]
    head_before = head.weight.detach().clone()
    if HEAD in recipe.bits:
        # To nearest: in a tied model its rows are also the embedding, which is no product.
        clip = recipe.clip is not Clip.none and recipe.bits[HEAD] == 4
        done.blocks[HEAD] = in_blocks(head_before, recipe.bits[HEAD], recipe.size, clip)
        _replace(head, done.blocks[HEAD].weight())
        if is_tied(model):
            embedding_of(model).data = head.weight.data
    walk = Walk(model, windows)
    for index, layer in enumerate(model.stack.layers()):
        expected = dense.outputs(index)
        dense.advance(index)
        for shared in walk.second_moments(index) if recipe.fitted else walk.inputs(index):
            normed = layer.query in shared.linears or layer.ffn_in in shared.linears
            _round_readers(shared, recipe, done, normed)
        rounded = walk.outputs(index, _ERROR_WINDOWS)
        done.errors.extend(
            _error(name, model.linears()[name], *expected[name], rounded[name][1])
            for name in expected
            if name in done.blocks
        )
        walk.advance(index)
    if HEAD in done.blocks:
        x, rounded_x = (one.final(one.states[:1, ::EVERY]) for one in (dense, walk))
        done.errors.append(_error(HEAD, head, x, x @ head_before.T, rounded_x @ head.weight.T))
    return done


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
        _replace(linear, blocks.weight() / factors)


def _replace(linear: nn.Linear, weight: Tensor) -> None:
    """In place: the old weights are mapped from a file, which stays in memory while any of them is there."""
    linear.weight.data.copy_(weight)


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
