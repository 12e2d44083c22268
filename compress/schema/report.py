"""The schema of report.json: the one place where results of stages meet.

Stages return these dataclasses, `pipeline` assembles them, `report/` draws them. Units are in the
names; a metric carries its direction; an interval is a 95 % confidence interval.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, Field, TypeAdapter

from compress.errors import ArtifactError
from compress.schema.gate import Gate

SCHEMA_VERSION = 2


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
class LayerError:
    """How far a layer's int8 output is from its float output, in decibels of signal over noise."""

    node: str
    sqnr_db: float  # in the whole int8 graph
    alone_db: float  # this layer alone, on float inputs


@dataclass(frozen=True, kw_only=True)
class LayerErrors:
    floor_db: float  # that the gate asks of each layer alone
    texts: int
    worst_alone_db: float
    worst_db: float
    layers: tuple[LayerError, ...]  # the worst alone first


@dataclass(frozen=True, kw_only=True)
class LayerDamage:
    """What a layer in int8 costs the model, and what it costs to leave it in float."""

    node: str
    damage: float  # 1 - cosine of the model's output with this layer alone in int8 to the float model's
    macs: float  # share of those of all products with weights
    bytes_added: int  # to the file, where it is left in float
    left_out: bool


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """Layers left in float to keep the output near the float model's, or the task's metric, on `texts` of
    select."""

    min_cosine: float | None = None  # null: the goal was the metric
    cosine_all: float | None = None  # every layer rounded
    cosine: float | None = None  # what ships
    metric: str | None = None  # null: the goal was the cosine
    max_drop: float | None = None  # relative to the float graph's, as the next
    drop_all: float | None = None  # every layer rounded; positive: worse
    drop: float | None = None  # what ships
    met: bool
    texts: int
    bytes_added: int
    macs_left_out: float  # share, 0 to 1
    tried: tuple[tuple[int, float], ...] = ()  # layers left out, cosine or drop
    layers: tuple[LayerDamage, ...] = ()  # the most damage first; none where nothing had to be left out


@dataclass(frozen=True, kw_only=True)
class SensitiveLayers:
    """Layers of a language model that read one tensor, and what 4 bits in them alone cost."""

    names: tuple[str, ...]
    bits: int  # chosen
    kl: float  # nats a token
    low_bytes: int  # in 4 bits
    high_bytes: int  # in 8


@dataclass(frozen=True, kw_only=True)
class BitChoice:
    """How 4 and 8 bits were shared out."""

    size_bytes: int  # of all weights
    kl_of_the_sum: float  # nats a token: the sum over what has 4 bits
    layers: tuple[SensitiveLayers, ...]


@dataclass(frozen=True, kw_only=True)
class BlockFit:
    """How scales and norms were fitted to the float model's answers, codes left as they were."""

    steps: int
    select_loss: tuple[float, ...]  # nats a token, over its likeliest tokens: before, and as it went


@dataclass(frozen=True, kw_only=True)
class WeightBlocks:
    """A language model's weights in blocks of integers."""

    bits: dict[str, int]  # layer -> bits
    kl: float  # nats a token, of the whole model to its float graph
    accuracy_level: int  # of the products: 4 rounds activations to 8 bits, 0 leaves them in float
    kl_of_level: float | None = None  # at the level asked for; where that costs too much, level 0 is taken
    kl_of_float_activations: float | None = None
    choice: BitChoice | None = None  # of mixed bits
    fit: BlockFit | None = None


@dataclass(frozen=True, kw_only=True)
class SmoothedLayers:
    """Layers of a language model that read one tensor, as SmoothQuant left them."""

    layers: tuple[str, ...]
    alpha: float | None  # None: better left as they are
    per_token: bool  # a scale for each token
    kl: float  # nats a token, of 8 bits in them alone
    blocks: bool  # in blocks of 8 bits instead, with float activations


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """What a pruner cut."""

    before: dict[str, tuple[int, ...]]  # kind -> width of each layer, as the next
    after: dict[str, tuple[int, ...]]
    dropped_layers: tuple[int, ...] = ()  # their numbers in the dense model
    macs: dict[str, int] = field(default_factory=dict)  # before, after
    calibration_tokens: int | None = None
    bytes_per_token: dict[str, dict[str, float]] = field(default_factory=dict)  # before, after -> split


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """How training after pruning went; an entry of each list an evaluation on the select split."""

    steps: tuple[int, ...]
    train_loss: tuple[float | None, ...] = ()  # mean since the evaluation before
    select_loss: tuple[float | None, ...] = ()
    select_cosine: tuple[float, ...] = ()
    select_accuracy: tuple[float, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ClassDrop:
    """One class of a classifier, on the examples with its label."""

    name: str
    # named so by releases that knew images alone
    examples: Annotated[int, Field(validation_alias=AliasChoices("examples", "images"))]
    accuracy: float  # share, 0 to 1
    drop: Estimate  # of the accuracy, from dense


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """How many examples of one class are taken for another."""

    label: str
    answer: str
    dense: int
    variant: int


@dataclass(frozen=True, kw_only=True)
class ChangedAnswer:
    """An example of test to which this variant gives another answer than dense."""

    example: int  # its number in the split, from 0
    label: str
    dense: str
    dense_confidence: float  # of that answer, 0 to 1
    answer: str
    confidence: float
    png: str = ""  # base64, of an image
    text: str = ""  # its beginning


@dataclass(frozen=True, kw_only=True)
class MovedThreshold:
    """The probability from which on a text counts as of a class, by the highest F1 on every other example of
    test; what keeping dense's costs is by the examples between."""

    name: str  # of the class
    dense: float
    variant: float
    cost: float  # of F1 to this variant, of dense's threshold in place of its own


@dataclass(frozen=True, kw_only=True)
class ClassificationDetails:
    """What became of single classes and examples."""

    lost: int  # examples that dense gets right and this variant wrong
    gained: int  # the other way round
    mcnemar_p: float  # two-sided, exact: that both are equally accurate
    ece: float  # expected calibration error, 0 to 1
    per_class: tuple[ClassDrop, ...]  # the largest drop first
    confusions: tuple[Confusion, ...]  # the largest change first, at most ten
    changed: tuple[ChangedAnswer, ...] = ()  # at most twelve, of the variant that is kept
    thresholds: tuple[MovedThreshold, ...] = ()  # of a classifier of texts


@dataclass(frozen=True, kw_only=True)
class PartScore:
    """One label, or kind of entity, of a text model."""

    name: str
    examples: int  # that have it
    value: float
    drop: Estimate  # from dense


@dataclass(frozen=True, kw_only=True)
class ChangedText:
    """An example of test that this variant answers otherwise than dense."""

    example: int  # its number in the split, from 0
    text: str
    expected: str
    dense: str
    variant: str


@dataclass(frozen=True, kw_only=True)
class TextDetails:
    """What became of single labels and examples of a text model."""

    lost: int  # examples that dense answers better than this variant
    gained: int  # the other way round
    metric: str = ""  # of the parts
    parts: tuple[PartScore, ...] = ()  # the largest drop first
    thresholds: tuple[MovedThreshold, ...] = ()
    changed: tuple[ChangedText, ...] = ()  # at most twelve, of the variant that is kept


@dataclass(frozen=True, kw_only=True)
class LanguageDomain:
    """Held-out documents of one corpus, as this variant reads them."""

    name: str
    documents: int
    tokens: int  # by the variant's own tokenizer
    bytes: int  # of UTF-8 text


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """What two models write after the beginning of a test document, always taking the likeliest token."""

    domain: str
    prompt: str
    dense: str
    variant: str
    tokens: int  # of the longer one
    shared_tokens: int  # with which both begin
    dense_repeated: float  # share (0 to 1) of runs of 4 tokens that had occurred before in it
    variant_repeated: float


@dataclass(frozen=True, kw_only=True)
class LanguageDetails:
    """How a language model was read, and what it writes."""

    context: int  # tokens of a window, as the next
    stride: int
    domains: tuple[LanguageDomain, ...]
    compared_share: float  # of the places in the text, at which the dense model and this one were compared
    continuations: tuple[Continuation, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PrunedAlone:
    """The model with so many channels of one group left, all else as it was, nothing estimated anew."""

    keep: float  # the share asked for
    channels: int
    accuracy: float
    cross_entropy: float  # nats


@dataclass(frozen=True, kw_only=True)
class ChannelGroup:
    """Layers whose channels are only cut together."""

    layer: str  # the first of them
    coupled: tuple[str, ...]  # the others
    channels: int
    cuts: tuple[PrunedAlone, ...]  # the smallest cut first


@dataclass(frozen=True, kw_only=True)
class PruningSensitivity:
    """What the uncut model loses on `images` calibration images by cuts into one group alone."""

    images: int
    accuracy: float  # uncut, as the next
    cross_entropy: float
    groups: tuple[ChannelGroup, ...]  # in the order of the net


# Classes of operators, for readers: what a call's time is spent on.
INTEGER, FLOAT, ATTENTION = "integer products", "float products", "attention"
ROUNDING = "rounding to integers"
NORMS, ACTIVATIONS, SUMS = "normalisation", "activation functions", "sums and the like"
MOVES, OTHER = "data movement", "other"
KINDS = (INTEGER, FLOAT, ATTENTION, ROUNDING, NORMS, ACTIVATIONS, SUMS, MOVES, OTHER)


@dataclass(frozen=True, kw_only=True)
class Operator:
    """All nodes of one type in one call, as they ran after onnxruntime's own optimisations."""

    op_type: str
    kind: str  # of KINDS
    nodes: int
    ms: float
    macs: int = 0
    weight_bytes: int = 0  # that its products read


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Where one call's time goes."""

    operators: tuple[Operator, ...]  # the slowest first
    weight_types: tuple[str, ...] = ()  # of the integer products: int8, uint8
    fallback_nodes: int = 0  # that the execution provider lacks, so that another one runs them


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What this machine reaches at best with so many threads; a multiply-accumulate is two operations."""

    threads: int
    bandwidth_gb_per_s: float  # reading memory
    float32_gflops: float
    integer_gops: dict[str, float]  # by the type of the weights
    cache_bytes: int | None  # of the last level
    node_us: float = 0.0  # microseconds to start a node that computes next to nothing


@dataclass(frozen=True, kw_only=True)
class Floor:
    """The least time a call can take on this machine: its products at full speed, its weights read once."""

    memory_ms: float  # 0 where the weights may stay in the cache
    integer_ms: float
    float_ms: float

    @property
    def ms(self) -> float:
        return max(self.memory_ms, self.integer_ms + self.float_ms)


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
class Tried:
    """One candidate of `target.tune`, timed in one job with what had been kept until then."""

    kind: str  # format, settings, operators, threads
    name: str  # int8_static, precision=bf16, gelu_tanh, 2 threads, ...
    beside: str  # what it was timed beside, by its name; of threads those it had to beat
    # by workload, over `beside`; empty where it was not timed
    speedup: dict[str, Estimate] = field(default_factory=dict)
    overall: Estimate | None = None  # geometric mean of the speed-ups
    drop: Estimate | None = None  # of the primary metric on select, where it changes the numbers
    kept: bool = False
    reason: str = ""  # why it was or was not


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What was tried on the target, and what of it is in all that was measured."""

    tried: tuple[Tried, ...]
    chosen: dict[str, Any]  # settings of the run, by their dotted names, as they were chosen
    dense_threads: int  # with which the dense model is fastest, and was timed


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
