"""What a report tells of quantization."""

from dataclasses import dataclass


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
