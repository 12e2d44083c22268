"""The schema of report.json: the one place where results of stages meet.

Stages return these dataclasses, `pipeline` assembles them, `report/` draws them. Units are in the
names; a metric carries its direction; an interval is a 95 % confidence interval.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from compress.errors import ArtifactError

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Score:
    """A quality metric on `n` examples."""

    value: float
    ci95: tuple[float, float]
    n: int
    higher_is_better: bool


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A drop, a difference or a ratio with its interval."""

    value: float
    ci95: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Milliseconds a call; `ci95` is the interval of the p50."""

    p50: float
    p90: float
    p99: float
    ci95: tuple[float, float]
    samples: int


@dataclass(frozen=True, kw_only=True)
class SkippedNode:
    node: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Share (0 to 1) of multiply-accumulates and of weight bytes that are integer."""

    coverage_macs: float
    coverage_bytes: float
    skipped: tuple[SkippedNode, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One rung of the ladder from the dense model to the one that ships: one ONNX file."""

    name: str  # dense, pruned, int8, ...
    stage: str  # the stage that made it
    path: str  # relative to the run's folder, or a store digest
    sha256: str
    size_bytes: int
    parameters: int
    macs: int | None  # multiply-accumulates for one example of the reference length
    quality: dict[str, Score] = field(default_factory=dict)
    fidelity: dict[str, Score] = field(default_factory=dict)  # to the dense model
    # Positive means worse than dense, whatever the metric's direction.
    drop_from_dense: dict[str, Estimate] = field(default_factory=dict)
    latency_ms: dict[str, Latency] = field(default_factory=dict)  # by workload
    speedup: dict[str, Estimate] = field(default_factory=dict)  # over dense, by workload
    load_ms: float | None = None
    peak_memory_bytes: int | None = None
    quantization: Coverage | None = None
    widths: dict[str, tuple[int, ...]] = field(default_factory=dict)  # kind -> width of each layer
    seconds: float = 0.0  # it took to make


@dataclass(frozen=True, kw_only=True)
class Split:
    examples: int
    fingerprint: str
    requested: int | None = None


@dataclass(frozen=True, kw_only=True)
class Stage:
    name: str
    digest: str
    reused: bool
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A check between two stages, with the numbers it saw."""

    name: str
    passed: bool
    numbers: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    ships: bool
    best: str  # name of the variant that is kept, whether it ships or not
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    experiment: str
    config: dict[str, Any]
    environment: dict[str, Any]
    splits: dict[str, Split]
    primary_metric: str
    variants: tuple[Variant, ...]  # the first is dense, the last is what `artifact/` holds
    verdict: Verdict
    stages: tuple[Stage, ...]
    gates: tuple[Gate, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)  # training curve, noise verdict, provenance
    schema_version: int = SCHEMA_VERSION

    def save(self, path: Path) -> None:
        path.write_bytes(_ADAPTER.dump_json(self, indent=2) + b"\n")

    @staticmethod
    def load(path: Path) -> "Report":
        """Raises ArtifactError when `path` is not a report of this schema version."""
        try:
            report = _ADAPTER.validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise ArtifactError(
                f"cannot read the report {path}",
                found=str(error).splitlines()[0],
                next="name the folder of a finished run",
            ) from None
        if report.schema_version != SCHEMA_VERSION:
            raise ArtifactError(
                f"{path} has another schema version",
                found=report.schema_version,
                allowed=SCHEMA_VERSION,
                next="redraw it with the release of the toolkit that wrote it",
            )
        return report


_ADAPTER = TypeAdapter(Report)
