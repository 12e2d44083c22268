"""How it becomes integers."""

import re
from dataclasses import dataclass, field
from enum import Enum

from compress.config.checks import within
from compress.errors import ConfigError
from compress.space import Choice


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


def _smooth(config: "Int8Dynamic | Int8Static") -> None:
    if config.smooth is not None:
        within(config, 0.0, 1.0, "smooth")


def _floors(config: "Int8Dynamic | Int8Static") -> None:
    within(config, -100.0, 150.0, "min_sqnr_db")
    if config.min_cosine is not None:
        within(config, -1.0, 1.0, "min_cosine")


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
        within(self, 0.0, 1.0, "min_coverage")
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
    examples: int = 128  # of the calibration split; histograms keep every activation in memory
    per_channel: bool = True
    embeddings: bool = True
    smooth: float | None = None  # alpha of SmoothQuant, 1: all into the weights; null: off; try 0.7
    bias_correction: bool = False  # give each product's bias the mean that quantization took
    exclude: list[str] = field(default_factory=list)
    min_coverage: float = 0.95
    min_cosine: float | None = None  # as in Int8Dynamic
    min_sqnr_db: float = 5.0

    def __post_init__(self) -> None:
        within(self, 0.0, 1.0, "min_coverage")
        _smooth(self)
        _floors(self)
        _patterns(self)
        within(self, 50.0, 100.0, "percentile")
        within(self, 1, 100_000, "examples")
