"""States of tokens to one vector a text: the ways of sentence-transformers' module Pooling."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

_Pool = Callable[[Tensor, Tensor], Tensor]


def pooled(way: str, tokens: Tensor, mask: Tensor, left: bool = False) -> Tensor:
    """(batch, tokens, hidden), (batch, tokens) -> (batch, hidden); padding does not count: `mask` is 0 there.

    `left`: texts are padded at their beginning.
    """
    if way == "cls" and not left:
        return tokens[:, 0]
    return _POOLINGS[way](tokens, mask)


def _first(tokens: Tensor, mask: Tensor) -> Tensor:
    return _at(tokens, _padding_before(mask))


def _last(tokens: Tensor, mask: Tensor) -> Tensor:
    return _at(tokens, (mask * torch.arange(mask.shape[1])).amax(1))


def _largest(tokens: Tensor, mask: Tensor) -> Tensor:
    return tokens.masked_fill(mask.unsqueeze(-1) == 0, float("-inf")).amax(1)


def _mean(tokens: Tensor, mask: Tensor) -> Tensor:
    return _weighted(tokens, mask.to(tokens.dtype))


def _mean_by_root(tokens: Tensor, mask: Tensor) -> Tensor:
    weights = mask.unsqueeze(-1).to(tokens.dtype)
    return (tokens * weights).sum(1) / weights.sum(1).clamp(min=1e-9).sqrt()


def _mean_by_position(tokens: Tensor, mask: Tensor) -> Tensor:
    positions = torch.arange(1, mask.shape[1] + 1) - _padding_before(mask).unsqueeze(1)
    return _weighted(tokens, (mask * positions).to(tokens.dtype))


def _weighted(tokens: Tensor, weights: Tensor) -> Tensor:
    weights = weights.unsqueeze(-1)
    return (tokens * weights).sum(1) / weights.sum(1).clamp(min=1e-9)


def _padding_before(mask: Tensor) -> Tensor:
    """(batch, tokens) -> (batch): how many tokens there are before the first of the text."""
    return (mask.cumsum(1) == 0).to(mask.dtype).sum(1)


def _at(tokens: Tensor, places: Tensor) -> Tensor:
    index = places.view(-1, 1, 1).expand(-1, 1, tokens.shape[-1])
    return tokens.gather(1, index).squeeze(1)


_POOLINGS: Mapping[str, _Pool] = {
    "cls": _first,
    "max": _largest,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_by_root,
    "weightedmean": _mean_by_position,
    "lasttoken": _last,
}
