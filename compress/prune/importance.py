"""How much each channel of a coupled group matters. All speak torch-pruning's `Importance` protocol."""

from collections.abc import Mapping

import torch
import torch_pruning as tp
from torch import Tensor, nn

from compress.config.prune import Importance
from compress.prune.activation_stats import Moments


class ActivationImportance(tp.importance.Importance):  # type: ignore[misc]
    """Variance of a channel x squared norm of the weights that read it (FLAP's WIFV, An et al. 2024).

    With `repair`, the variance that the other channels cannot predict, 1 / [C^-1]_ii, takes its place:
    the rest is what least squares puts back (Optimal Brain Surgeon, Hassibi & Stork 1993).
    torch-pruning's class of this name keeps the last batch only and sums over tokens.
    """

    def __init__(self, moments: Mapping[nn.Module, Moments], repair: bool, damping: float) -> None:
        self.moments = moments
        self.repair = repair
        self.damping = damping

    def __call__(self, group: tp.Group) -> Tensor:
        for dependency, _ in group:
            reader = dependency.target.module
            if reader in self.moments:
                c = self.moments[reader].covariance()
                variance = c.diagonal()
                if self.repair:
                    strength = self.damping * variance.mean().clamp(min=1e-30)
                    damped = c + strength * torch.eye(len(c), dtype=c.dtype)
                    variance = 1 / torch.linalg.inv(damped).diagonal()
                scores: Tensor = variance * reader.weight.detach().double().pow(2).sum(0)
                return scores.float()
        raise LookupError("no layer of the group was observed")


def importance(
    kind: Importance, moments: Mapping[nn.Module, Moments], repair: bool, damping: float
) -> tp.importance.Importance:
    """The importance of this kind; Taylor expects gradients in the weights."""
    match kind:
        case Importance.magnitude:
            return tp.importance.GroupMagnitudeImportance(p=2, normalizer=None)
        case Importance.taylor:
            return tp.importance.GroupTaylorImportance(normalizer=None)
        case Importance.activation:
            return ActivationImportance(moments, repair, damping)
