"""What is cut out of it."""

import importlib
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from compress.config.checks import Checked, number, part, positive, random_seed, share
from compress.config.space import Choice, Float
from compress.errors import ConfigError, did_you_mean
from compress.registry import option
from compress.schema.workload import Workload

# local: the same share from every layer, so that widths are uniform;
# global (a keyword, hence this form): one ranking over all layers, whose checkpoint is padded with zeros to
# the widest of them.
Scope = Enum("Scope", {"local": "local", "global": "global"})


@dataclass(kw_only=True)
class Keep(Checked):
    """Share of each kind that stays."""

    # feed-forward channels
    ffn: float = part(1.0, search=Float(0.25, 1.0, 0.0625))
    # attention heads
    heads: float = part(1.0, search=Float(0.5, 1.0, 0.125))
    # whole transformer layers
    layers: float = part(1.0, search=Float(0.5, 1.0, 0.125))


@dataclass(kw_only=True)
class PruneConfig(Checked):
    pass


@option("prune", "none", None)
@dataclass(kw_only=True)
class NoPrune(PruneConfig):
    pass


def check_importance(name: str) -> None:
    """Raise ConfigError unless a function of `compress/prune/importance.py` has this name."""
    known = _importances()
    if name not in known:
        raise ConfigError("importance is unknown", found=name, allowed=did_you_mean(name, known))


def check_comparable(config: "TransformerPrune") -> None:
    """Raise ConfigError for the global scope with an importance that says nothing between layers of a
    language model, whose dense layers differ far more than those of an encoder."""
    if config.scope is Scope["global"] and _importances()[config.importance].across != "added":
        added = [name for name, importance in _importances().items() if importance.across == "added"]
        raise ConfigError(
            "scope=global compares channels of different layers",
            found=f"importance={config.importance}",
            allowed=f"importance={' or '.join(added)}, which is about the model's answers",
        )


def _importances() -> dict[str, Any]:
    """By name; pruning stands above the configuration, hence no import statement."""
    importances: dict[str, Any] = importlib.import_module("compress.prune.importance").IMPORTANCES
    return importances


@option(
    "prune",
    "transformer",
    "compress.prune.transformer:prune",
    layers=("transformer",),
)
@dataclass(kw_only=True)
class TransformerPrune(PruneConfig):
    """A physically smaller transformer: fewer tokens, feed-forward channels, attention heads, layers."""

    # tokens of a language model at most; null keeps all. A multiple of 32 keeps kernels full
    vocabulary: int | None = number(None, 1, 10_000_000, works_on=("language_modeling",))
    keep: Keep = field(default_factory=Keep)
    # magnitude, taylor, activation, wanda, fisher, obs. By magnitude alone a transformer breaks, so the
    # search leaves that out.
    importance: str = field(default="activation", metadata={"search": Choice(("activation", "taylor"))})
    # global: each layer has a width of its own
    scope: Scope = Scope["local"]
    # kept channels are a multiple of this, so that integer kernels stay full
    round_to: int = number(64, 1, 4096)
    repair: bool = True  # least squares of the layer that reads what was cut, to what it gave before
    # of the least squares, relative to the mean of the diagonal
    damping: float = positive(0.01, 10.0)
    batch_size: int = number(32, 1, 4096)  # of texts or images
    # of a language model, for scores and least squares; ten a channel do
    calibration_tokens: int = number(32768, 64, 100_000_000)
    protect_first: int = number(0, 0, 1000)  # layers that are not dropped
    protect_last: int = number(0, 0, 1000)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_importance(self.importance)
        if self.scope is Scope["global"] and _importances()[self.importance].across == "never":
            check_comparable(self)

    def check_task(self, task: str) -> None:
        super().check_task(task)
        if task == "language_modeling":
            check_comparable(self)


@option(
    "prune",
    "structured",
    "compress.prune.transformer:prune",
    not_on=("language_modeling",),
    layers=("transformer",),
)
@dataclass(kw_only=True)
class StructuredPrune(TransformerPrune):
    """The former name of `prune=transformer`, which manifests of artifacts have."""


@dataclass(kw_only=True)
class LanguageKeep(Keep):
    """`heads` are those of keys and values, each with the query heads that share it."""

    ffn: float = part(1.0, search=Float(0.5, 1.0, 0.0625))
    heads: float = part(1.0)
    layers: float = part(1.0, search=Float(0.75, 1.0, 0.0625))


@option("prune", "language", "compress.prune.transformer:prune", works_on=("language_modeling",))
@dataclass(kw_only=True)
class LanguagePrune(TransformerPrune):
    """`prune=transformer` with the defaults of language models."""

    keep: LanguageKeep = field(default_factory=LanguageKeep)
    importance: str = "fisher"
    protect_first: int = 2  # without the first the model breaks
    protect_last: int = 1


class ChannelImportance(Enum):
    magnitude = "magnitude"  # L2 norm of all coupled weights
    lamp = "lamp"  # the same relative to all that are larger (Lee et al. 2021)
    fpgm = "fpgm"  # distance to the geometric median (He et al. 2019)
    bn_scale = "bn_scale"  # factor of the batch normalisation (Liu et al. 2017)
    taylor = "taylor"  # |weight x gradient| of the loss (Molchanov et al. 2019)
    hessian = "hessian"  # weight^2 x squared gradient, an image at a time (LeCun et al. 1989)
    activation = "activation"  # mean magnitude of what a channel gives
    random = "random"  # what every other one has to beat


# isomorphic: one ranking over the layers of one kind (Fang et al. 2024)
ChannelScope = Enum("ChannelScope", {"local": "local", "global": "global", "isomorphic": "isomorphic"})


@option(
    "prune",
    "channels",
    "compress.prune.channels:prune",
    works_on=("image_classification",),
    layers=("convolutional", "other"),
)
@dataclass(kw_only=True)
class ChannelPrune(PruneConfig):
    """Physically fewer channels of a convolutional classifier, coupled layers together."""

    importance: ChannelImportance = field(
        default=ChannelImportance.taylor, metadata={"search": Choice(("taylor", "hessian", "magnitude"))}
    )
    scope: ChannelScope = ChannelScope["local"]
    # share of the channels that stays; multiply-accumulates fall by about its square
    keep: float = part(0.7, search=Float(0.25, 1.0, 0.0625))
    macs: float | None = part(None)  # share of the multiply-accumulates that is to stay, in place of keep
    # p50 that what ships is to have on the target, in place of keep; found by measuring smaller models
    latency_ms: float | None = positive(None)
    latency_workload: str | None = None  # null: the last of benchmark.workloads
    steps: int = number(1, 1, 1000)  # in how many rounds, the importance measured anew before each
    round_to: int = number(8, 1, 4096)  # kept channels are a multiple of this, so that kernels stay full
    images: int = number(256, 2, 1_000_000)  # of the calibration split, for gradients and activations
    # of the train split, to estimate means and variances anew
    batch_norm_images: int = number(2048, 0, 10_000_000)
    # Training before the cut that draws whole groups of weights to zero, the weakest the most (Fang et al.
    # 2023). It changes what stays, so that magnitudes tell more.
    sparse_epochs: int = number(0, 0, 10_000)
    sparse_strength: float = share(1e-4)
    sparse_learning_rate: float = number(0.01, 0, 1)
    sensitivity: bool = False  # measure what the model loses by cuts into each layer alone, for the report
    seed: int = random_seed()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.latency_workload is not None:
            Workload.parse(self.latency_workload)
        goals = [name for name in ("macs", "latency_ms") if getattr(self, name) is not None]
        if len(goals) > 1:
            raise ConfigError(
                "pruning has two goals", found=" and ".join(goals), allowed="macs or latency_ms, or neither"
            )
