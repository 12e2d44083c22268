"""How it becomes integers."""

from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar

from compress.config.checks import PATTERNS, Checked, number, one_of, positive, random_seed, share
from compress.config.space import Choice
from compress.errors import ConfigError
from compress.registry import option


class WeightType(Enum):
    auto = "auto"  # from the flags of the target's CPU
    int8 = "int8"
    uint8 = "uint8"


class Calibrator(Enum):
    minmax = "minmax"
    entropy = "entropy"
    percentile = "percentile"
    mse = "mse"  # the range whose own grid has the least squared error


class Rounding(Enum):
    rtn = "rtn"  # to nearest
    gptq = "gptq"  # one weight after the other, the rest of the row making up for the error


class Clip(Enum):
    none = "none"  # a block's range is that of its weights
    mse = "mse"  # narrower where that lowers the squared error
    hessian = "hessian"  # likewise, each weight's error weighted by its input's mean square


@dataclass(kw_only=True)
class QuantizeConfig(Checked):
    variant: ClassVar[str] = "int8"  # what a report calls the result


@option("quantize", "none", None)
@dataclass(kw_only=True)
class NoQuantize(QuantizeConfig):
    pass


@dataclass(kw_only=True)
class Int8(QuantizeConfig):
    """8-bit weights and activations."""

    weight_type: WeightType = WeightType.auto
    reduce_range: bool | None = None  # null: from the flags of the target's CPU
    per_channel: bool = True
    embeddings: bool = True  # 8-bit embedding tables too: smaller, not faster
    smooth: float | None = share(None)  # alpha of SmoothQuant, 1: all into the weights; null: off; try 0.7
    bias_correction: bool = False  # give each product's bias the mean that quantization took
    # regular expressions over node names
    exclude: list[str] = field(default_factory=list, metadata=PATTERNS)
    min_coverage: float = share(0.95)  # floor of the share of MACs in integers
    # Of the output to the float model's, mean over select texts: below it the layers that cost the most
    # for their size stay in float, as long as min_coverage allows. null: off
    min_cosine: float | None = number(None, -1.0, 1.0)
    # Of the task's primary metric on select, relative to the float graph's: above it the cheapest layers stay
    # in float that help, as long as min_coverage allows. null: off
    max_drop: float | None = number(None, 0.0, 1.0)
    # gate: signal over noise of each layer alone; a sound layer has 20 to 45
    min_sqnr_db: float = number(5.0, -100.0, 150.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_drop is not None and self.min_cosine is not None:
            raise ConfigError(
                "one goal at a time", found="max_drop and min_cosine", allowed="the one that counts for you"
            )


@option("quantize", "int8_dynamic", "compress.quantize.dynamic:quantize")
@dataclass(kw_only=True)
class Int8Dynamic(Int8):
    """The activations' scales are found at run time."""


@option(
    "quantize",
    "int8_static",
    "compress.quantize.static:quantize",
    not_on=("language_modeling",),
)
@dataclass(kw_only=True)
class Int8Static(Int8):
    """In QDQ format; scales come from the calibration split."""

    symmetric_activations: bool | None = None  # null: from the flags of the target's CPU
    calibrator: Calibrator = field(
        default=Calibrator.minmax, metadata={"search": Choice(("minmax", "entropy", "percentile", "mse"))}
    )
    percentile: float = number(99.99, 50.0, 100.0)
    examples: int = number(128, 1, 100_000)  # of the calibration split
    equalize: bool = False  # make the channels between two convolutions even: for depthwise nets
    min_coverage: float = 0.9  # the first convolution of a small ViT is a twentieth of it


@option(
    "quantize",
    "int8_qat",
    "compress.quantize.qat:quantize",
    works_on=("image_classification",),
    layers=("convolutional",),
)
@dataclass(kw_only=True)
class Int8Qat(Int8Static):
    """Int8Static, then trained for a while with its rounding in place: convolutional classifiers only."""

    epochs: int = number(1, 1)
    images: int = number(10_000, 0)  # of train, an epoch: most is won within a few thousand; 0: all
    batch_size: int = number(64, 1)
    # Adam's, falling to zero. Weights and scales are measured in steps of their grids, so that it says how
    # far a weight goes at a time.
    learning_rate: float = positive(0.005, 10.0)
    distill: float = share(0.9)  # share of the loss that the float model's answers have; the rest are labels
    temperature: float = positive(4.0, 100.0)
    seed: int = random_seed()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bias_correction:
            raise ConfigError(
                "bias_correction is not for int8_qat", found=True, allowed="false: training finds the biases"
            )


@dataclass(kw_only=True)
class IntegerBlocks(QuantizeConfig):
    """Language models: a scale and a zero point a block of weights."""

    # weights of a row that share a scale, as onnxruntime's MatMulNBits can; it must divide every width
    block_size: int = one_of(64, 16, 32, 64, 128, 256)
    # 4: activations become 8-bit within a product, fast; 0 or 1: they stay in float. 4 gives way to 0 where
    # it costs quality on calibration windows.
    accuracy_level: int = one_of(4, 0, 1, 4)
    # regular expressions over names of linear layers
    exclude: list[str] = field(default_factory=list, metadata=PATTERNS)
    min_coverage: float = share(0.95)  # floor of the share of MACs in integers
    min_sqnr_db: float = number(5.0, -100.0, 150.0)  # gate: signal over noise of each layer alone
    # Steps of 2,048 tokens in which scales and norms learn the float model's answers; 0: none. Nearer, for
    # minutes of training; no other file size or speed.
    fit_steps: int = number(0, 0, 1_000_000)
    fit_learning_rate: float = positive(1e-3, 1.0)  # of the scales' and norms' shares, at its peak


@option("quantize", "int8_blocks", "compress.quantize.weight_only:quantize", works_on=("language_modeling",))
@dataclass(kw_only=True)
class Int8Blocks(IntegerBlocks):
    """8-bit weights; embedding and head stored once."""

    min_sqnr_db: float = 20.0
    max_kl: float = positive(0.05, 100.0)  # gate: nats a token to the float model, on calibration windows


@option("quantize", "int4_blocks", "compress.quantize.weight_only:quantize", works_on=("language_modeling",))
@dataclass(kw_only=True)
class Int4Blocks(Int8Blocks):
    """4-bit weights; embedding and head in `head_bits`. Blocks of 32 are nearer, and a quarter slower."""

    variant: ClassVar[str] = "int4"

    method: Rounding = Rounding.gptq
    clip: Clip = Clip.hessian
    windows: int = number(32, 1, 100_000)  # of the calibration split, 512 tokens each
    awq: bool = False  # even out the inputs of attention and feed-forward first; strength searched
    head_bits: int = one_of(8, 4, 8)  # of the embedding too, which is the same matrix in a tied model
    min_sqnr_db: float = 5.0
    max_kl: float = 0.5


@option("quantize", "mixed_blocks", "compress.quantize.weight_only:quantize", works_on=("language_modeling",))
@dataclass(kw_only=True)
class MixedBlocks(IntegerBlocks):
    """4 or 8 bits a layer, as its sensitivity and a budget say; head and embedding too.

    Layers that read the same tensor (query, key and value; gate and up) get the same bits.
    """

    variant: ClassVar[str] = "mixed"

    # of all weights: the most sensitive layers for their size get 8 bits
    max_size_mb: float | None = positive(None)
    # nats a token to the float model: no more layers get 8 bits than it takes
    max_kl: float | None = positive(None)
    method: Rounding = Rounding.gptq
    clip: Clip = Clip.hessian
    awq: bool = False
    windows: int = number(32, 1, 100_000)
    sensitivity_windows: int = number(2, 1, 100_000)  # for the layers' sensitivities, 512 tokens each

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_size_mb is None and self.max_kl is None:
            raise ConfigError(
                "max_size_mb or max_kl has to say how small, or how near to the float model",
                found="neither",
                allowed="one of the two, or both",
                next="quantize.max_size_mb=115, or quantize.max_kl=0.05",
            )


@option(
    "quantize", "int8_smooth", "compress.quantize.language_smooth:quantize", works_on=("language_modeling",)
)
@dataclass(kw_only=True)
class Int8Smooth(QuantizeConfig):
    """Language models: 8-bit weights and activations after SmoothQuant, its alpha searched layer by layer."""

    windows: int = number(16, 1, 100_000)  # of the calibration split, 512 tokens each
    # Layers that read one tensor and alone cost more nats a token than this get 8-bit blocks: activations
    # rounded block by block, slower products.
    layer_kl: float = positive(0.002, 100.0)
    accuracy_level: int = one_of(4, 0, 1, 4)  # of these blocks
    # regular expressions over names of linear layers
    exclude: list[str] = field(default_factory=list, metadata=PATTERNS)
    min_coverage: float = share(0.95)
    max_kl: float = positive(0.5, 100.0)


@option("quantize", "fp16", "compress.quantize.float16:quantize", not_on=("language_modeling",))
@dataclass(kw_only=True)
class Float16(QuantizeConfig):
    """No integers: weights and arithmetic in 16-bit floats, inputs and outputs in 32."""

    variant: ClassVar[str] = "fp16"

    # gate: of outputs to the float model's, the least of 64 examples of the calibration split
    min_cosine: float = number(0.999, -1.0, 1.0)


@option(
    "quantize",
    "q4f16",
    "compress.quantize.float16_blocks:quantize",
    not_on=("language_modeling",),
    layers=("transformer",),
)
@dataclass(kw_only=True)
class Float16Blocks(Float16):
    """Float16, with the weights of products in 4-bit blocks."""

    variant: ClassVar[str] = "q4f16"

    block_size: int = one_of(32, 16, 32, 64, 128, 256)  # weights of a row that share a scale
    # regular expressions over node names
    exclude: list[str] = field(default_factory=list, metadata=PATTERNS)
    min_coverage: float = share(0.9)  # floor of the share of MACs with weights in 4 bits
    max_drop: float | None = number(None, 0.0, 1.0)  # as of int8_dynamic: layers in 16 bits in place of 4
    min_cosine: float = 0.9
