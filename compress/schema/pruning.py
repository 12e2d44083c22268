"""What a report tells of pruning and recovery."""

from dataclasses import dataclass, field


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
