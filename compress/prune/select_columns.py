"""Which groups of input columns of a layer go: pure arithmetic on its weight and the moments of its input."""

import torch
from torch import Tensor

from compress.config.prune import LanguageImportance

ROUNDS = 32  # in which the columns go; the errors are reckoned anew before each


def keep_groups(
    kind: LanguageImportance,
    weight: Tensor,
    gram: Tensor,
    size: int,
    count: int,
    damping: float,
    information: Tensor | None = None,
) -> Tensor:
    """Columns that stay, ascending, of `count` groups of `size` neighbouring columns.

    `weight` (out, width), `gram` = E[h h^T] (width, width), both float64; `information` (width,) for
    `fisher`.
    """
    if kind is LanguageImportance.obs:
        groups = _eliminate(weight, gram, size, count, damping)
    else:
        scores = weight.pow(2).sum(0)
        if kind is LanguageImportance.wanda:
            scores = scores * gram.diagonal()
        elif kind is LanguageImportance.fisher:
            assert information is not None
            scores = information
        groups = scores.view(-1, size).sum(1).topk(count).indices.sort().values
    return (groups[:, None] * size + torch.arange(size)).flatten()


def _eliminate(weight: Tensor, gram: Tensor, size: int, count: int, damping: float) -> Tensor:
    """Groups that stay when those go whose absence least squares can make up for best.

    The error of leaving out the columns S is tr(W_S (H^-1_SS)^-1 W_S^T), H the damped `gram`; then W and
    H^-1 become those of the columns left (Hassibi & Stork 1993; in groups ZipLM, Kurtic et al. 2023).
    """
    width = len(gram)
    left = torch.arange(width // size)
    strength = damping * gram.diagonal().mean().clamp(min=1e-30)
    inverse = torch.linalg.inv(gram + strength * torch.eye(width, dtype=gram.dtype))
    step = -(-(len(left) - count) // ROUNDS)
    while len(left) > count:
        each = inverse.view(len(left), size, len(left), size).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        w = weight.view(len(weight), len(left), size)
        errors = torch.einsum("ogs,gst,ogt->g", w, torch.linalg.inv(each), w)
        going = errors.topk(min(step, len(left) - count), largest=False).indices
        mask = torch.ones(len(left), dtype=torch.bool)
        mask[going] = False
        stay = mask.repeat_interleave(size)
        solved = torch.linalg.solve(inverse[~stay][:, ~stay], inverse[~stay])
        weight = (weight - weight[:, ~stay] @ solved)[:, stay]
        inverse = (inverse - inverse[:, ~stay] @ solved)[stay][:, stay]
        left = left[mask]
    return left
