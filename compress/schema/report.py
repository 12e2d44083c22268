"""The schema of report.json: the one place where results of stages meet.

Stages return these dataclasses, `pipeline` assembles them, `report/` draws them. Units are in the
names; a metric carries its direction; an interval is a 95 % confidence interval.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from compress.errors import ArtifactError
from compress.schema.details import ClassificationDetails, LanguageDetails, TextDetails
from compress.schema.estimates import Estimate, Latency, Score
from compress.schema.gate import Gate
from compress.schema.pruning import Pruning, PruningSensitivity, Recovery
from compress.schema.quantization import Coverage, LayerErrors, Sensitivity, SmoothedLayers, WeightBlocks
from compress.schema.speed import Floor, Limits, Profile, Tuning

SCHEMA_VERSION = 2


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A step from the dense model to the one that was asked for: one ONNX file."""

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
    not_timed: str = ""  # why, of a dense model that nobody timed; no variant has a speed-up then
    # Of a language model, by workload; of one call: 1x442 is prefill, 1x1+442 decode after 442 tokens.
    tokens_per_second: dict[str, Estimate] = field(default_factory=dict)
    # Of a language model, by decode workload: the time of reading every weight byte once from memory, as a
    # share of the p50; above 1 where weights stay in a cache.
    bandwidth_share: dict[str, float] = field(default_factory=dict)
    load_ms: float | None = None
    peak_memory_bytes: int | None = None
    quantization: Coverage | None = None
    layer_errors: LayerErrors | None = None
    sensitivity: Sensitivity | None = None
    blocks: WeightBlocks | None = None
    smoothing: tuple[SmoothedLayers, ...] = ()
    classification: ClassificationDetails | None = None
    language: LanguageDetails | None = None
    text: TextDetails | None = None
    widths: dict[str, tuple[int, ...]] = field(default_factory=dict)  # kind -> width of each layer
    layer_names: dict[str, tuple[str, ...]] = field(
        default_factory=dict
    )  # kind -> names, as of the dense model
    profile: dict[str, Profile] = field(default_factory=dict)  # by workload
    floor: dict[str, Floor] = field(default_factory=dict)
    # By workload, only where the interval of the speed-up does not lie above 1.
    not_faster: dict[str, tuple[str, ...]] = field(default_factory=dict)
    advice: tuple[str, ...] = ()  # what would be faster on this target
    seconds: float = 0.0  # it took to make

    def score(self, metric: str) -> Score | None:
        """Its quality, or how near it is to the dense model."""
        return self.quality.get(metric) or self.fidelity.get(metric)


@dataclass(frozen=True, kw_only=True)
class NearDuplicates:
    """Examples of a test set that nearly repeat a sentence of train, calibration or select."""

    examples: int
    share: float  # 0 to 1, of the set
    limit: float  # Jaccard similarity of two sentences from which on they count
    similarity: float = 0.0  # of the two most alike, shortened below; 0 where none reaches the limit
    text: str = ""
    other: str = ""
    other_split: str = ""


@dataclass(frozen=True, kw_only=True)
class UseCount:
    """How often a test set was used on this machine: the best of many models is partly so by chance."""

    looks: int  # evaluations of a model that was made, not of the dense one
    models: int  # different ONNX files among them


@dataclass(frozen=True, kw_only=True)
class CutTexts:
    """Texts, or pairs of them, of which the model does not read the end."""

    texts: int
    cut: int  # of them
    limit: int  # tokens that are read of one
    words: int = 0  # of a tagger: all there are, as the next
    unread: int = 0  # words behind the limit, which get no tag


@dataclass(frozen=True, kw_only=True)
class Split:
    examples: int
    fingerprint: str
    requested: int | None = None
    near_duplicates: NearDuplicates | None = None  # of a test set
    looks: UseCount | None = None  # of a test set
    cut: CutTexts | None = None  # of the test set of a model of texts, by the dense one


@dataclass(frozen=True, kw_only=True)
class Stage:
    name: str
    digest: str
    reused: bool
    seconds: float
    # Of this toolkit's process, also where an earlier run made it; None where the system does not tell.
    # Models that are timed run in processes of their own.
    peak_memory_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Noninferiority:
    """The test that a metric dropped by less than the budget allows; small p-values say that it did."""

    metric: str
    drop: Estimate
    margin: float  # the budget in units of the metric
    p_value: float  # one-sided; below 0.025 where the whole interval of the drop lies below the margin
    p_holm: float  # adjusted for testing all metrics at once


@dataclass(frozen=True, kw_only=True)
class Verdict:
    ships: bool
    best: str  # name of the variant in `artifact/`, whether it ships or not
    reasons: tuple[str, ...]
    instead: str | None = None  # the last variant that meets the budget, where `best` does not
    noninferiority: tuple[Noninferiority, ...] = ()  # of `best`, the primary metric first


@dataclass(frozen=True, kw_only=True)
class Report:
    experiment: str
    config: dict[str, Any]
    environment: dict[str, Any]
    splits: dict[str, Split]
    primary_metric: str
    variants: tuple[Variant, ...]  # the first is dense, the last is what was asked for
    verdict: Verdict
    stages: tuple[Stage, ...]
    gates: tuple[Gate, ...] = ()
    limits: Limits | None = None
    pruning_sensitivity: PruningSensitivity | None = None
    options: dict[str, str] = field(default_factory=dict)  # config group -> option, which `config` lacks
    command: str = ""  # that made the run
    lineage: tuple[str, ...] = ()  # what was done to the model, in words
    noise: tuple[str, ...] = ()  # why the timing may not be trusted
    # workload -> how many times as fast as what was timed the code of the model card is, in its own process
    card_speed: dict[str, Estimate] = field(default_factory=dict)
    card_failure: str = ""  # what that code said where it did not run
    pruning: Pruning | None = None
    recovery: Recovery | None = None
    tuning: Tuning | None = None
    schema_version: int = SCHEMA_VERSION

    def save(self, path: Path) -> None:
        path.write_bytes(_ADAPTER.dump_json(self, indent=2) + b"\n")

    @staticmethod
    def load(path: Path) -> "Report":
        """Raises ArtifactError when `path` is not a report of this schema version."""
        try:
            report = _ADAPTER.validate_python(_upgraded(json.loads(path.read_bytes())))
        except (OSError, ValueError) as error:
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


def _upgraded(data: Any) -> Any:
    """A report of version 1, whose `notes` had no types, as one of today; others as they are."""
    if not isinstance(data, dict) or data.get("schema_version") != 1:
        return data
    notes = data.pop("notes", {})
    facts = {name: notes[name] for name in ("command", "lineage", "noise") if notes.get(name)}
    if (notes.get("prune") or {}).get("before"):
        facts["pruning"] = notes["prune"]
    if (notes.get("recover") or {}).get("steps"):
        facts["recovery"] = notes["recover"]
    return {**data, **facts, "schema_version": SCHEMA_VERSION}


_ADAPTER = TypeAdapter(Report)
