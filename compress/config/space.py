"""How a setting declares what `compress search` may try: `field(metadata={"search": Int(1, 4)})`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Float:
    low: float
    high: float
    step: float


@dataclass(frozen=True)
class Int:
    low: int
    high: int
    step: int = 1


@dataclass(frozen=True)
class Choice:
    """Names: of an enum's members, or of the options of a group."""

    names: tuple[str, ...]


Range = Float | Int | Choice
