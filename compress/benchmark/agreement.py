"""How near two runtimes' numbers are, and how near they have to be. Arithmetic alone."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

HUGE = 1e30  # what masks add; equal wherever it is one
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Of arrays of one shape, computed here and there."""

    relative: float  # largest difference over the largest number; infinite where one has NaN or infinity
    cosine: float  # smallest of a row, which is along the last axis
    same_largest: float  # share of rows with the largest number at the same place
    steps: float  # largest difference of integers, else 0
    unequal: float  # share of elements that are not equal

    def __str__(self) -> str:
        return f"cosine {self.cosine:.6f}, largest difference {self.relative:.1e} of the largest number"

    def words(self) -> str:
        """Of one operator."""
        if self.relative == np.inf and self.cosine == -1:
            return "NaN, infinity or another shape"
        of_steps = f", {self.steps:.0f} steps, {self.unequal:.1%} of the integers" if self.steps else ""
        return f"largest difference {self.relative:.1e} of the largest number{of_steps}"


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    relative: float
    cosine: float

    def holds(self, found: Difference) -> bool:
        return found.relative <= self.relative and found.cosine >= self.cosine

    def __str__(self) -> str:
        return f"cosine {self.cosine:.6f}, largest difference {self.relative:.1e} of the largest number"


# Of what a whole model gives, and of one operator, by what the target computes in. Measured: two onnxruntimes
# or OpenVINO in float32 differ by 1e-6; an approximation of Gelu by 2e-4 in an operator.
WHOLE = {
    "f32": Tolerance(relative=1e-4, cosine=1 - 1e-6),
    "tf32": Tolerance(relative=5e-3, cosine=1 - 1e-4),
    "f16": Tolerance(relative=1e-2, cosine=1 - 1e-4),
    "bf16": Tolerance(relative=5e-2, cosine=1 - 2e-3),
}
OPERATOR = {"f32": 5e-5, "tf32": 2e-3, "f16": 4e-3, "bf16": 3e-2}
ROUNDING = {"f32": 2.0**-18, "tf32": 2.0**-11, "f16": 2.0**-11, "bf16": 2.0**-8}
NOISE = 4.0  # times what such a rounding of the weights moves the outputs by
# Operators that round what they read to 8 bits by themselves, each runtime in blocks of its own.
ROUND_INSIDE = {"MatMulNBits", "DynamicQuantizeMatMul", "QAttention", "DynamicQuantizeLSTM", "QOrderedMatMul"}
ROUNDS = 2e-2
ONE_STEP = 0.02  # share of 8-bit integers that may be one apart: what lies on the edge of rounding


def difference(here: np.ndarray, there: np.ndarray) -> Difference:
    """Of two arrays; of other shapes or types they are as different as can be."""
    if here.shape != there.shape or here.dtype.kind != there.dtype.kind:
        return Difference(relative=np.inf, cosine=-1.0, same_largest=0.0, steps=np.inf, unequal=1.0)
    if not here.size:
        return Difference(relative=0.0, cosine=1.0, same_largest=1.0, steps=0.0, unequal=0.0)
    ours, theirs = (np.atleast_1d(array).astype(np.float64) for array in (here, there))
    broken = bool((np.isnan(ours) != np.isnan(theirs)).any())
    with np.errstate(invalid="ignore"):
        huge = (np.abs(ours) > HUGE) & (np.abs(theirs) > HUGE) & (np.sign(ours) == np.sign(theirs))
        equal = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    ours, theirs = (np.where(huge | (np.isnan(ours) & np.isnan(theirs)), 0.0, a) for a in (ours, theirs))
    broken |= not np.isfinite(theirs).all() or not np.isfinite(ours).all()
    if broken:
        return Difference(
            relative=np.inf, cosine=-1.0, same_largest=0.0, steps=np.inf, unequal=float(np.mean(~equal))
        )
    largest, most = float(np.abs(ours).max()), float(np.abs(ours - theirs).max())
    ours, theirs = (array.reshape(-1, array.shape[-1]) for array in (ours, theirs))
    return Difference(
        relative=most / largest if largest else (0.0 if most == 0 else np.inf),
        cosine=_cosine(ours, theirs),
        same_largest=float(np.mean(ours.argmax(1) == theirs.argmax(1))),
        steps=most if here.dtype.kind in "iub" else 0.0,
        unequal=float(np.mean(~equal)),
    )


def _cosine(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The smallest of rows; those a thousand times shorter than the longest are noise."""
    lengths = np.linalg.norm(ours, axis=1)
    rows = lengths > 1e-3 * lengths.max()
    if not rows.any():
        return 1.0 if not theirs.any() else -1.0
    ours, theirs, lengths = ours[rows], theirs[rows], lengths[rows]
    others = np.linalg.norm(theirs, axis=1)
    products = (ours * theirs).sum(1)
    return float((products / np.maximum(lengths * others, 1e-300)).min())


def worst(found: Iterable[Difference]) -> Difference:
    """The worst of each number."""
    found = list(found)
    return Difference(
        relative=max(each.relative for each in found),
        cosine=min(each.cosine for each in found),
        same_largest=min(each.same_largest for each in found),
        steps=max(each.steps for each in found),
        unequal=max(each.unequal for each in found),
    )


def differences(here: Iterable[Arrays], there: Iterable[Arrays]) -> dict[str, Difference]:
    """Output -> the worst over batches."""
    found: dict[str, list[Difference]] = {}
    for ours, theirs in zip(here, there, strict=True):
        for name, array in ours.items():
            missing = np.empty((*array.shape, 0), array.dtype)
            found.setdefault(name, []).append(difference(array, theirs.get(name, missing)))
    return {name: worst(each) for name, each in found.items()}


def operator_agrees(found: Difference, kind: np.dtype, op_type: str, precision: str) -> bool:
    """Whether an operator that reads the same numbers gives the same: floats to rounding, integers of 8 bits
    to one step on the edge of rounding, other integers exactly."""
    if kind.kind == "f":
        return found.relative <= _float_allowed(op_type, precision)
    if kind.itemsize == 1 and kind.kind in "iu":
        return found.steps <= 1 and found.unequal <= _edge(precision)
    return found.unequal == 0


def operator_allowed(kind: np.dtype, op_type: str, precision: str) -> str:
    """The same in words."""
    if kind.kind == "f":
        return f"difference {_float_allowed(op_type, precision):.0e} of the largest number ({precision})"
    if kind.itemsize == 1 and kind.kind in "iu":
        return f"one step in {_edge(precision):.0%} of the integers ({precision})"
    return "equal integers"


def _float_allowed(op_type: str, precision: str) -> float:
    return max(OPERATOR[precision], ROUNDS if op_type in ROUND_INSIDE else 0.0)


def _edge(precision: str) -> float:
    return ONE_STEP if precision == "f32" else 1.0


def widened(precision: str, noise: Difference) -> Tolerance:
    """What a model may differ by that rounding moves by `noise`: int8 graphs, whose steps make it larger."""
    base = WHOLE[precision]
    return Tolerance(
        relative=max(base.relative, NOISE * noise.relative),
        cosine=min(base.cosine, 1 - NOISE * (1 - noise.cosine)),
    )
