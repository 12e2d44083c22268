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


def refit(weight: Tensor, gram: Tensor, kept: Tensor, damping: float) -> Tensor:
    """`least_squares` of a layer that has no bias to take the means: `gram` = E[h h^T] is not centred."""
    none = torch.zeros(len(weight), dtype=torch.float64), torch.zeros(len(gram), dtype=torch.float64)
    return least_squares(weight, *none, gram, kept, damping)[0]
