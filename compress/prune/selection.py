"""Which channels stay: pure arithmetic on scores."""

from collections.abc import Sequence

import torch
from torch import Tensor

from compress.errors import ConfigError
from compress.prune.shares import rounded_width


def select_global(scores: Sequence[Tensor], share: float, multiple: int) -> list[Tensor]:
    """Indices kept of each layer by one ranking; scores are standardised within each layer first,
    since their scale differs by orders of magnitude between layers (FLAP, An et al. 2024)."""
    flat = torch.cat([(s - s.mean()) / s.std(correction=0).clamp(min=1e-12) for s in scores])
    stays = torch.zeros(len(flat), dtype=torch.bool)
    stays[flat.topk(max(1, round(len(flat) * share))).indices] = True
    counts = [int(part.sum()) for part in torch.split(stays, [len(s) for s in scores])]
    return [
        best(s, rounded_width(len(s), count / len(s), multiple))
        for s, count in zip(scores, counts, strict=True)
    ]


def cheapest_widths(costs: Sequence[Tensor], share: float, multiple: int) -> list[int]:
    """Width of each layer of a common number of channels, `share` of all of them in sum.

    `costs` of a channel's absence must add up over layers. Of each layer the cheapest go first, `multiple` at
    a time, down to half of what each would have if all were alike: costs are those of leaving one alone.
    """
    width = len(costs[0])
    alike = rounded_width(width, share, multiple)
    least = rounded_width(alike, 0.5, multiple)
    saved = [torch.cat([cost.new_zeros(1), cost.sort().values.cumsum(0)]) for cost in costs]
    widths = [width] * len(costs)

    def narrower(layer: int) -> int:
        return (widths[layer] - 1) // multiple * multiple

    def price(layer: int) -> float:
        now, then = width - widths[layer], width - narrower(layer)
        return float(saved[layer][then] - saved[layer][now]) / (then - now)

    while True:
        spare = sum(widths) - alike * len(costs)
        free = [i for i, now in enumerate(widths) if narrower(i) >= least and now - narrower(i) <= spare]
        if not free:
            return widths
        cheapest = min(free, key=price)
        widths[cheapest] = narrower(cheapest)


def best(scores: Tensor, count: int) -> Tensor:
    """Indices of the `count` largest, ascending; raises ConfigError where scores are not finite."""
    if not torch.isfinite(scores).all():
        raise ConfigError(
            "the importances are not finite", next="try another one: prune.importance=activation"
        )
    return scores.topk(count).indices.sort().values
