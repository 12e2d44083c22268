"""How a setting declares what `compress search` may try: `field(metadata={"search": Choice(("a", "b"))})`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Float:
    low: float
    high: float
    step: float


@dataclass(frozen=True)
class Choice:
    """Names: of an enum's members, or of the options of a group."""

    names: tuple[str, ...]


Range = Float | Choice
