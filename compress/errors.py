"""Errors a user can act on.

    CompressError
    ├── ConfigError          a key, a type or a value in the configuration
    ├── SourceError          weights or data that cannot be fetched or are not what was pinned
    ├── DataError            data that is empty, malformed or leaks between splits
    ├── ModelError           a checkpoint that cannot be loaded or an architecture no family knows
    ├── GateError            a stage changed the model more than it may
    ├── BudgetError          a search or verdict that has no candidate
    ├── StoreError           a cache that cannot be read or written
    ├── BenchmarkError       a model that cannot be timed
    └── ArtifactError        an artifact that fails verification

Every message says what is wrong, what was found, what is allowed and what to try next.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class CompressError(Exception):
    """Root of all errors that are the user's to act on; printed without a traceback."""

    def __init__(
        self, what: str, *, found: object = None, allowed: object = None, next: str | None = None
    ) -> None:
        lines = [what]
        if found is not None:
            lines.append(f"  found:   {found}")
        if allowed is not None:
            lines.append(f"  allowed: {allowed}")
        if next is not None:
            lines.append(f"  next:    {next}")
        super().__init__("\n".join(lines))


class ConfigError(CompressError):
    pass


class SourceError(CompressError):
    pass


class DataError(CompressError):
    pass


class ModelError(CompressError):
    pass


class GateError(CompressError):
    pass


class BudgetError(CompressError):
    pass


class StoreError(CompressError):
    pass


class BenchmarkError(CompressError):
    pass


class ArtifactError(CompressError):
    pass


def did_you_mean(found: str, allowed: Iterable[str]) -> str:
    """`"did you mean 'x'?"` for the closest allowed name, else a plain list of all of them."""
    names = sorted(allowed)
    close = get_close_matches(found, names, n=1)
    listed = ", ".join(names) or "none"
    return f"{listed} (did you mean '{close[0]}'?)" if close else listed
