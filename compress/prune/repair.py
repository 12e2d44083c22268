"""Least-squares repair of the layer that reads pruned channels."""

import torch
from torch import Tensor


def least_squares(
    weight: Tensor, bias: Tensor, mean: Tensor, covariance: Tensor, kept: Tensor, damping: float
) -> tuple[Tensor, Tensor]:
    """New weight (out, kept) and bias (out) of a linear layer that loses input channels.

    Minimises E|W h - W' h_K|^2 over the calibration tokens. Written as a change to the kept columns,
    so that damping (relative to the mean of the diagonal) shrinks towards the weights as they were,
    not towards zero: W' = W_K + W_P C_PK (C_KK + l I)^-1, with centred moments C, and the bias takes
    over the mean. The structured form of Optimal Brain Surgeon (Hassibi & Stork 1993; Kwon et al. 2022).

    `weight` (out, width), `mean` (width), `covariance` (width, width), `kept` indices; float64 inside.
    """
    w, c = weight.double(), covariance.double()
    pruned = torch.ones(w.shape[1], dtype=torch.bool)
    pruned[kept] = False
    normal = c[kept][:, kept]
    strength = damping * normal.diagonal().mean().clamp(min=1e-30)  # of dead channels it would be zero
    normal = normal + strength * torch.eye(len(kept), dtype=torch.float64)
    change = torch.linalg.solve(normal, c[kept][:, pruned] @ w[:, pruned].T).T
    new_weight = w[:, kept] + change
    new_bias = bias.double() + w @ mean - new_weight @ mean[kept]
    return new_weight.to(weight.dtype), new_bias.to(bias.dtype)


def fit(weight: Tensor, gram: Tensor, cross: Tensor, kept: Tensor, damping: float) -> Tensor:
    """New weight (out, kept) of a layer that reads h, where another model gives y = W h of its own h.

    Minimises E|y - W' h_K|^2 + l |W' - W_K|^2 with l = `damping` x mean of the diagonal: it is drawn
    towards the weights as they were. W' = W_K + (E[y h_K^T] - W_K G_KK) (G_KK + l I)^-1. Of one and the
    same h, this is `least_squares` without means: for layers that have no bias to take them.

    `weight` (out, width), `gram` = E[h h^T] (width, width), `cross` = E[y h^T] (out, width); float64 inside.
    """
    w, g = weight.double()[:, kept], gram.double()[kept][:, kept]
    strength = damping * g.diagonal().mean().clamp(min=1e-30)
    normal = g + strength * torch.eye(len(kept), dtype=torch.float64)
    change = torch.linalg.solve(normal, (cross.double()[:, kept] - w @ g).T).T
    repaired: Tensor = w + change
    return repaired.to(weight.dtype)
