"""Which layers of a language model get 8 bits and which 4.

Sensitivity of layers that read one tensor: KL from the float model to the model with these layers alone in
4 bits, rounded to nearest, over calibration windows. Only the layers from there on are computed again.
Small divergences nearly add up, so 8 bits go where they save the most for their bytes.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compress.config.quantize import Clip, MixedBlocks
from compress.errors import ConfigError
from compress.quantize.blocks import block_bytes, in_blocks
from compress.quantize.language_layers import HEAD, embedding_of, is_tied
from compress.quantize.layer_inputs import LayerInputs, second_moments

EVERY = 4  # tokens


@dataclass(frozen=True, kw_only=True)
class Sensitive:
    names: tuple[str, ...]  # layers that read one tensor
    kl: float  # nats a token, of 4 bits in them alone
    low_bytes: int  # in 4 bits
    high_bytes: int  # in 8

    @property
    def price(self) -> int:
        return self.high_bytes - self.low_bytes


@dataclass(frozen=True, kw_only=True)
class Choice:
    bits: Mapping[str, int]
    size_bytes: int  # of all weights
    kl: float  # sum of the sensitivities of what has 4 bits
    found: tuple[Sensitive, ...]

    def facts(self) -> dict[str, Any]:
        return {
            "size_bytes": self.size_bytes,
            "kl_of_the_sum": self.kl,
            "layers": [{**asdict(each), "bits": self.bits[each.names[0]]} for each in self.found],
        }


def choose_bits(
    model: Any, windows: Tensor, names: Sequence[str], config: MixedBlocks, rest_bytes: int
) -> Choice:
    """For the linear layers `names` of `model`; `rest_bytes`: of the weights that stay in float."""
    found = sensitivities(model, windows, names, config)
    return choose(found, rest_bytes, config.max_size_mb, config.max_kl)


def choose(
    found: Sequence[Sensitive], rest_bytes: int, max_size_mb: float | None, max_kl: float | None
) -> Choice:
    """8 bits by divergence saved a byte, as far as the size allows and no further than `max_kl` needs.

    Raises ConfigError where not even 4 bits everywhere are small enough.
    """
    size = rest_bytes + sum(each.low_bytes for each in found)
    limit = float("inf") if max_size_mb is None else max_size_mb * 1e6
    if size > limit:
        raise ConfigError(
            "quantize.max_size_mb is below the smallest size",
            found=f"{max_size_mb:g} MB",
            allowed=f"at least {math.ceil(size / 1e4) / 100:g} MB, with 4 bits in every layer",
            next="a larger quantize.block_size is smaller; so is a model pruned before",
        )
    high: set[tuple[str, ...]] = set()
    kl = sum(each.kl for each in found)
    for each in sorted(found, key=lambda each: -each.kl / each.price):
        if max_kl is not None and kl <= max_kl:
            break
        if size + each.price <= limit:
            size, kl = size + each.price, kl - each.kl
            high.add(each.names)
    bits = {name: 8 if each.names in high else 4 for each in found for name in each.names}
    return Choice(bits=bits, size_bytes=size, kl=max(0.0, kl), found=tuple(found))


@torch.no_grad()
def sensitivities(model: Any, windows: Tensor, names: Sequence[str], config: MixedBlocks) -> list[Sensitive]:
    inputs = LayerInputs(model, windows)
    final = inputs.behind(0)
    head = model.linears()[HEAD]
    found = []
    for index in range(len(inputs.blocks)):
        for reading in second_moments(inputs, index):
            linears = {n: each for n, each in zip(reading.names, reading.linears, strict=True) if n in names}
            if linears:
                with _low(linears.values(), config, reading.moment):
                    kl = head_divergence(head, head.weight, final, inputs.behind(index))
                found.append(_sensitive(linears, kl, config))
        inputs.advance(index)
    if HEAD in names:
        found.append(_head(model, final, windows, config))
    return found


def _head(model: Any, final: Tensor, windows: Tensor, config: MixedBlocks) -> Sensitive:
    """Of the head, and of the embedding where it is the same matrix."""
    head, clip = model.linears()[HEAD], config.clip is not Clip.none
    before = head.weight.detach()
    rounded = in_blocks(before, 4, config.block_size, clip).weight()
    embedding = embedding_of(model)
    if is_tied(model):
        embedding.data = rounded
        final_low = LayerInputs(model, windows).behind(0)
        embedding.data = before
    else:
        final_low = final
    return _sensitive(
        {HEAD: head}, head_divergence(head, rounded, final, final_low), config, 1 if is_tied(model) else 2
    )


@contextmanager
def _low(linears: Iterable[nn.Linear], config: MixedBlocks, moment: Tensor) -> Iterator[None]:
    """The linear layers rounded to 4 bits, for as long as the context lasts."""
    importance = moment.diagonal() if config.clip is Clip.hessian else None
    before = [(each, each.weight.data) for each in linears]
    for linear, weight in before:
        blocks = in_blocks(weight, 4, config.block_size, config.clip is not Clip.none, importance)
        linear.weight.data = blocks.weight()
    try:
        yield
    finally:
        for linear, weight in before:
            linear.weight.data = weight


def _sensitive(
    linears: Mapping[str, nn.Linear], kl: float, config: MixedBlocks, copies: int = 1
) -> Sensitive:
    low, high = (
        copies
        * sum(block_bytes(e.out_features, e.in_features, bits, config.block_size) for e in linears.values())
        for bits in (4, 8)
    )
    return Sensitive(names=tuple(linears), kl=kl, low_bytes=low, high_bytes=high)


def head_divergence(head: nn.Linear, low_head: Tensor, final: Tensor, low_final: Tensor) -> float:
    """KL in nats a token of what the head makes of two hidden states (windows, tokens, width), with its own
    weight and with `low_head`; window by window, for logits of all would not fit, and of every fourth token,
    for the head of a small model is as much work as ten of its layers."""
    final, low_final = final[:, ::EVERY], low_final[:, ::EVERY]
    total = 0.0
    for x, y in zip(final, low_final, strict=True):
        p, q = head(x).log_softmax(-1), nn.functional.linear(y, low_head, head.bias).log_softmax(-1)
        total += float((p.exp() * (p - q)).sum())
    return max(0.0, total / (final.shape[0] * final.shape[1]))
