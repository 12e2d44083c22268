"""What a stage proved of its result. Apart from the rest of the report, which takes a tenth of a second."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A check between two stages, with the numbers it saw."""

    name: str
    passed: bool
    numbers: dict[str, float]
