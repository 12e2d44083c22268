"""Narrower transformers: feed-forward channels, and heads with the keys and values they share.

What reads the columns that go is fitted, by least squares, to what it gave in the dense model. Fitting it to
the dense output on what the layers cut before it leave (the asymmetric form of SparseGPT, Frantar & Alistarh
2023) lost more here: errors in the inputs make weights shrink.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from compress.config.prune import Scope, TransformerPrune
from compress.models.layers import Layer, Stack
from compress.models.moments import Moments
from compress.models.padding import note_width
from compress.prune.fisher import information
from compress.prune.importance import IMPORTANCES, Columns, Score
from compress.prune.least_squares import least_squares, refit
from compress.prune.selection import best, cheapest_widths, select_global
from compress.prune.shares import rounded_width
from compress.tasks import Model
from compress.tasks.calibration import Calibration, accumulate


@dataclass(frozen=True)
class Channels:
    """Feed-forward channels of every layer, seen from the linear layer that reads them."""

    share: float  # that stays
    multiple: int  # of which so many stay
    repair: bool  # whether the reader is fitted anew
    size: int = 1  # neighbouring columns of the reader that go as one group

    def reader(self, layer: Layer) -> nn.Linear:
        return layer.ffn_out

    def writers(self, layer: Layer) -> list[nn.Linear]:
        return [linear for linear, _ in layer.channel_writers()]

    def cut_writers(self, stack: Stack, index: int, groups: Tensor) -> None:
        """Leave the rows of `groups`, and write down how many there are where that is remembered."""
        layer = stack.layers()[index]
        for linear, parts in layer.channel_writers():
            width = linear.out_features // parts
            keep_rows(linear, torch.cat([groups + part * width for part in range(parts)]))
        note_width(layer)


@dataclass(frozen=True)
class Heads:
    """Whole heads; those that share keys and values go together."""

    share: float
    repair: bool
    head_size: int
    sharing: int  # heads that share keys and values
    multiple: int = 1

    @property
    def size(self) -> int:
        return self.sharing * self.head_size

    def reader(self, layer: Layer) -> nn.Linear:
        return layer.attention_output

    def writers(self, layer: Layer) -> list[nn.Linear]:
        return [layer.query, layer.key, layer.value]

    def cut_writers(self, stack: Stack, index: int, groups: Tensor) -> None:
        layer, config = stack.layers()[index], stack.config
        total = layer.query.out_features // self.size
        keep_rows(layer.query, columns_of(groups, self.size))
        keep_rows(layer.key, columns_of(groups, self.head_size))
        keep_rows(layer.value, columns_of(groups, self.head_size))
        if stack.architecture.causal and len(groups) < total:  # a head's size stays, whatever the hidden size
            config.head_dim = self.head_size
            config.num_key_value_heads = len(groups)
            config.num_attention_heads = len(groups) * self.sharing


Cut = Channels | Heads


def cuts_of(stack: Stack, config: TransformerPrune) -> tuple[Heads, Channels]:
    """Attention before the feed-forward layer, as data flows. In an encoder nothing is fitted to the loss of
    heads."""
    repair = config.repair and stack.architecture.causal
    heads = Heads(config.keep.heads, repair, stack.head_size, stack.sharing)
    return heads, Channels(config.keep.ffn, config.round_to, config.repair)


def narrow(model: Model, cuts: Sequence[Cut], config: TransformerPrune, data: Calibration) -> None:
    """Cut every layer to the shares that `cuts` name, all by what they are in the model as it is.

    In the global scope layers have widths of their own: by one budget of channels for importances that add
    up, by one ranking for others. Heads of language models stay alike. Raises ConfigError for importances
    that are not finite.
    """
    if not cuts:
        return
    stack, across = model.stack, IMPORTANCES[config.importance].across
    layers, causal = stack.layers(), stack.architecture.causal
    scores, moments = measure(model, cuts, config, data)
    counts = {cut: [count_of(cut, layer) for layer in layers] for cut in cuts}
    ranked: dict[Cut, list[Tensor]] = {}
    for cut in cuts if config.scope is Scope["global"] else ():
        if causal and isinstance(cut, Heads):
            continue
        if across == "added":
            costs = [scores.of(cut, layer, 0, {}) for layer in layers]
            counts[cut] = cheapest_widths(costs, cut.share, cut.multiple)
        else:
            moments = list(moments)
            known = zip(layers, counts[cut], moments, strict=True)
            ranked[cut] = select_global([scores.of(cut, *layer) for layer in known], cut.share, cut.multiple)
    for index, (layer, seen) in enumerate(zip(layers, moments, strict=True)):
        staying = {
            cut: ranked[cut][index]
            if cut in ranked
            else best(scores.of(cut, layer, counts[cut][index], seen), counts[cut][index])
            for cut in cuts
        }
        for cut, groups in staying.items():
            apply(cut, stack, index, groups, seen, config.damping)
    model.module.zero_grad()  # of what is cut next, nothing may stay


def count_of(cut: Cut, layer: Layer) -> int:
    """Groups of columns that stay, where all layers lose the same share."""
    return rounded_width(cut.reader(layer).in_features // cut.size, cut.share, cut.multiple)


def measure(
    model: Model, cuts: Sequence[Cut], config: TransformerPrune, data: Calibration
) -> tuple["Scores", Iterable[Mapping[nn.Linear, Moments]]]:
    """What the importance needs of the whole model, and the moments of each layer in turn, where anything
    needs them. Gradients are left in the weights."""
    chosen, layers = IMPORTANCES[config.importance], model.stack.layers()
    readers = [[cut.reader(layer) for cut in cuts] for layer in layers]
    fisher: Mapping[nn.Linear, Tensor] = {}
    if "fisher" in chosen.needs:
        fisher = information([linear for linears in readers for linear in linears], data.losses())
    if "gradients" in chosen.needs:
        accumulate(model.module, data.losses())
    moments: Iterable[Mapping[nn.Linear, Moments]] = [{}] * len(layers)
    if "moments" in chosen.needs or any(cut.repair for cut in cuts):
        moments = data.moments(readers)
    gated = model.stack.architecture.causal or model.stack.architecture.gate is not None
    return Scores(chosen.score, fisher, gated, config.damping), moments


@dataclass(frozen=True)
class Scores:
    """What an importance says, by all that is known of a layer."""

    score: Score
    fisher: Mapping[nn.Linear, Tensor]
    reader_alone: bool  # rows of matrices that are gated or shared are no columns' own
    damping: float

    def of(self, cut: Cut, layer: Layer, count: int, moments: Mapping[nn.Linear, Moments]) -> Tensor:
        """One number a group of columns, of which `count` are to stay."""
        reader = cut.reader(layer)
        gradient = reader.weight.grad
        coupled = [(reader.weight.detach().T, None if gradient is None else gradient.T)]
        if not self.reader_alone:
            coupled += [(writer.weight.detach(), writer.weight.grad) for writer in cut.writers(layer)]
        return self.score(
            Columns(
                weight=reader.weight.detach().double(),
                size=cut.size,
                count=count,
                coupled=coupled,
                moments=moments.get(reader),
                fisher=self.fisher.get(reader),
                centred=reader.bias is not None,
                repair=cut.repair,
                damping=self.damping,
            )
        )


@torch.no_grad()
def apply(
    cut: Cut,
    stack: Stack,
    index: int,
    groups: Tensor,
    moments: Mapping[nn.Linear, Moments],
    damping: float,
) -> None:
    """Leave `groups` of layer `index`."""
    reader = cut.reader(stack.layers()[index])
    columns = columns_of(groups, cut.size)
    if len(columns) < reader.in_features:
        weight, bias = reader.weight.detach(), cast(Tensor | None, reader.bias)
        if not cut.repair:
            weight = weight[:, columns]
        elif bias is None:
            weight = refit(weight, moments[reader].second(), columns, damping)
        else:
            mean, covariance = moments[reader].mean(), moments[reader].covariance()
            weight, bias = least_squares(weight, bias.detach(), mean, covariance, columns, damping)
            reader.bias = nn.Parameter(bias)
        reader.weight = nn.Parameter(weight.contiguous())
        reader.in_features = len(columns)
    cut.cut_writers(stack, index, groups)


def columns_of(groups: Tensor, size: int) -> Tensor:
    """Of groups of `size` neighbours."""
    return (groups[:, None] * size + torch.arange(size)).flatten()


def keep_rows(linear: nn.Linear, rows: Tensor) -> None:
    if len(rows) == linear.out_features:
        return
    linear.weight = nn.Parameter(linear.weight[rows].clone())
    if linear.bias is not None:
        linear.bias = nn.Parameter(linear.bias[rows].clone())
    linear.out_features = len(rows)
