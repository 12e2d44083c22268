"""How much each group of neighbouring columns of a linear layer matters, by name: a function each.

A new one is a function here, `@importance("name", needs=...)`, and works on every transformer. This file is
read when a configuration is checked, before torch is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from compress.models.moments import Moments

ROUNDS = 32  # in which `obs` takes columns away; the errors are reckoned anew before each


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What is known of the columns of the layer that reads them, `size` neighbours going as one group."""

    weight: Tensor  # (out, width) of the reader, float64
    size: int
    count: int  # groups that are to stay
    # (weight, gradient) of every matrix that loses a row or a column with them, columns first: (width, ...)
    coupled: Sequence[tuple[Tensor, Tensor | None]]
    moments: Moments | None  # of what is read
    fisher: Tensor | None  # (width,), see prune/fisher.py
    centred: bool  # whether the reader has a bias, which takes the mean of what goes
    repair: bool  # whether least squares will fit the reader anew
    damping: float  # of it

    def seen(self) -> Moments:
        assert self.moments is not None
        return self.moments

    def second(self) -> Tensor:
        """The moments that count (width, width): about the mean where a bias makes up for it."""
        return self.seen().covariance() if self.centred else self.seen().second()

    def damped(self) -> Tensor:
        second = self.second()
        strength = self.damping * second.diagonal().mean().clamp(
            min=1e-30
        )  # of dead columns it would be zero
        return second + strength * second.new_ones(len(second)).diag()

    def grouped(self, scores: Tensor) -> Tensor:
        """Sums over the columns of each group."""
        return scores.view(-1, self.size).sum(1)


Score = Callable[[Columns], "Tensor"]  # one number a group, large is important


@dataclass(frozen=True, kw_only=True)
class Importance:
    score: Score
    needs: frozenset[str]  # of moments, gradients, fisher
    # Between layers: "ranked" once they are standardised within each, "added" as what leaving columns out
    # costs, or "never".
    across: str


IMPORTANCES: dict[str, Importance] = {}


def importance(name: str, needs: Sequence[str] = (), across: str = "ranked") -> Callable[[Score], Score]:
    """Declare the decorated function as the importance `name`."""

    def declare(score: Score) -> Score:
        if name in IMPORTANCES:
            raise ValueError(f"the importance {name} is already declared")
        IMPORTANCES[name] = Importance(score=score, needs=frozenset(needs), across=across)
        return score

    return declare


@importance("magnitude")
def magnitude(columns: Columns) -> Tensor:
    """Squared norm of all coupled weights: what the others have to beat."""
    norms = [weight.double().pow(2).flatten(1).sum(1) for weight, _ in columns.coupled]
    return columns.grouped(sum(norms[1:], norms[0]))


@importance("taylor", needs=("gradients",))
def taylor(columns: Columns) -> Tensor:
    """|weight x gradient of the loss| of all coupled weights (Molchanov et al. 2019)."""
    changes = []
    for weight, gradient in columns.coupled:
        assert gradient is not None
        changes.append((weight.double() * gradient.double()).abs().flatten(1).sum(1))
    return columns.grouped(sum(changes[1:], changes[0]))


@importance("activation", needs=("moments",))
def activation(columns: Columns) -> Tensor:
    """Variance of a column x squared norm of the weights that read it (FLAP's WIFV, An et al. 2024).

    With repair, the variance that the other columns cannot predict, 1 / [C^-1]_ii, takes its place: the rest
    is what least squares puts back (Optimal Brain Surgeon, Hassibi & Stork 1993).
    """
    unpredicted = 1 / columns.damped().inverse().diagonal() if columns.repair else columns.second().diagonal()
    return columns.grouped(unpredicted * columns.weight.pow(2).sum(0))


@importance("wanda", needs=("moments",))
def wanda(columns: Columns) -> Tensor:
    """Squared norm of the weights that read it x its mean square (Sun et al. 2024)."""
    return columns.grouped(columns.weight.pow(2).sum(0) * columns.seen().second().diagonal())


@importance("fisher", needs=("fisher",), across="added")
def fisher(columns: Columns) -> Tensor:
    """How much the model's answers depend on it (Theis et al. 2018)."""
    assert columns.fisher is not None
    return columns.grouped(columns.fisher)


@importance("obs", needs=("moments",), across="never")
def obs(columns: Columns) -> Tensor:
    """In which round a group goes, when those go first whose absence least squares makes up for best.

    The error of leaving out the columns S is tr(W_S (H^-1_SS)^-1 W_S^T), H the damped moments; then W and
    H^-1 become those of the columns left (Hassibi & Stork 1993; in groups ZipLM, Kurtic et al. 2023).
    """
    import torch

    weight, size, width = columns.weight, columns.size, columns.weight.shape[1]
    left = torch.arange(width // size)
    rounds = torch.zeros(len(left), dtype=torch.float64)
    inverse = torch.linalg.inv(columns.damped())
    step = -(-(len(left) - columns.count) // ROUNDS)
    while len(left) > columns.count:
        own = inverse.view(len(left), size, len(left), size).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        w = weight.view(len(weight), len(left), size)
        errors = torch.einsum("ogs,gst,ogt->g", w, torch.linalg.inv(own), w)
        going = errors.topk(min(step, len(left) - columns.count), largest=False).indices
        mask = torch.ones(len(left), dtype=torch.bool)
        mask[going] = False
        stay = mask.repeat_interleave(size)
        solved = torch.linalg.solve(inverse[~stay][:, ~stay], inverse[~stay])
        weight = (weight - weight[:, ~stay] @ solved)[:, stay]
        inverse = (inverse - inverse[:, ~stay] @ solved)[stay][:, stay]
        left = left[mask]
        rounds[left] += 1
    return rounds
