"""A dataclass as a JSON file of a stage's folder."""

from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from compress.errors import CompressError

T = TypeVar("T")


_adapter: Any = cache(TypeAdapter)


def write_typed(path: Path, value: Any, kind: Any) -> None:
    path.write_bytes(_adapter(kind).dump_json(value, indent=2) + b"\n")


def read_typed(path: Path, kind: type[T], error: type[CompressError], next: str) -> T:
    """What `write_typed` wrote. Raises `error` when it is missing or damaged."""
    try:
        value: T = _adapter(kind).validate_json(path.read_bytes())
        return value
    except (OSError, ValidationError) as reason:
        raise error(f"cannot read {path}", found=str(reason).splitlines()[0], next=next) from None
