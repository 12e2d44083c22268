"""What a setting may be, declared with its default and checked when its dataclass is made.

A class that only changes a default keeps what its base allows. A message begins with the field's own name:
`compose.to_config` puts the path before it.
"""

import dataclasses
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from compress.config.space import Range as Search
from compress.errors import ConfigError
from compress.registry import is_one_of


@dataclass(frozen=True)
class Range:
    low: float
    high: float = math.inf
    open_low: bool = False  # whether `low` itself is out of range

    def check(self, name: str, value: float) -> None:
        """Raise ConfigError for a value that the setting `name` may not have; likewise below."""
        if not (self.low < value if self.open_low else self.low <= value) or value > self.high:
            raise ConfigError(f"{name} is out of range", found=value, allowed=self)

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"{'above' if self.open_low else 'at least'} {self.low:g}"
        return f"{'(' if self.open_low else '['}{self.low:g}, {self.high:g}]"


@dataclass(frozen=True)
class OneOf:
    values: tuple[int, ...]

    def check(self, name: str, value: int) -> None:
        if value not in self.values:
            raise ConfigError(
                f"{name} has no such value", found=value, allowed=", ".join(map(str, self.values))
            )


@dataclass(frozen=True)
class FolderName:
    """Plain on every system."""

    def check(self, name: str, value: str) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", value):
            raise ConfigError(
                f"{name} is no plain folder name", found=value, allowed="letters, digits, - _ and ."
            )


@dataclass(frozen=True)
class Patterns:
    def check(self, name: str, value: Sequence[str]) -> None:
        for pattern in value:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ConfigError(
                    f"{name} holds what is no regular expression",
                    found=f"{pattern}: {error}",
                    allowed="regular expressions over node names",
                ) from None


Allowed = Range | OneOf | FolderName | Patterns
PATTERNS = {"allowed": Patterns()}  # metadata of a field of regular expressions


# ---------------------------------------------------------------- fields


def number(
    default: float | None,
    low: float,
    high: float = math.inf,
    *,
    above: bool = False,
    search: Search | None = None,
    works_on: tuple[str, ...] = (),
) -> Any:
    """A field from `low` to `high`; with `above`, more than `low`. `search`: what `compress search` tries.
    `works_on`: the tasks for which it says something, or traits of theirs; all without."""
    metadata = {"allowed": Range(low, high, above), "search": search, "works_on": works_on}
    return field(default=default, metadata={name: value for name, value in metadata.items() if value})


def positive(default: float | None, high: float = math.inf) -> Any:
    return number(default, 0.0, high, above=True)


def share(default: float | None) -> Any:
    return number(default, 0.0, 1.0)


def part(default: float | None, search: Search | None = None) -> Any:
    """A share that is not nothing."""
    return number(default, 0.0, 1.0, above=True, search=search)


def random_seed() -> Any:
    return number(0, 0, 2**32 - 1)


def one_of(default: int, *values: int) -> Any:
    return field(default=default, metadata={"allowed": OneOf(values)})


# ---------------------------------------------------------------- the check


def allowed_of(config_type: type, name: str) -> Allowed | None:
    """What a field of a dataclass, or the nearest base that says it, allows."""
    for kind in config_type.__mro__:
        declared = vars(kind).get("__dataclass_fields__", {}).get(name)
        if declared is not None and "allowed" in declared.metadata:
            found: Allowed = declared.metadata["allowed"]
            return found
    return None


class Checked:
    """Base of the dataclasses of the configuration; one with checks of its own calls this one's too."""

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):  # type: ignore[arg-type]
            value, allowed = getattr(self, item.name), allowed_of(type(self), item.name)
            if allowed is not None and value is not None:
                allowed.check(item.name, value)

    def check_task(self, task: str) -> None:
        """Raise ConfigError for a setting that says nothing of models of this task, or may not have its value
        there."""
        for item in dataclasses.fields(self):  # type: ignore[arg-type]
            works_on = item.metadata.get("works_on", (task,))
            if not is_one_of(task, works_on) and getattr(self, item.name) != item.default:
                raise ConfigError(
                    f"{item.name} does not work on this kind of model",
                    found=f"{getattr(self, item.name)} for {task}",
                    allowed=f"{item.name}={'null' if item.default is None else item.default}; "
                    f"others for {' and '.join(works_on)}",
                )
