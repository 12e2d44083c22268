"""What a stage says of its result: the gates that it passed, facts for the report, the files that ship.

It lies in the stage's folder as stage.json, and is all that assembling and shipping know of a stage.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from compress.errors import StoreError
from compress.schema.gate import Gate

FILE = "stage.json"
Fact = TypeVar("Fact")


@dataclass(frozen=True, kw_only=True)
class StageResult:
    gates: tuple[Gate, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)  # name -> dataclass, or plain JSON; read with `fact`
    ships: tuple[str, ...] = ()  # relative to the stage's folder, with forward slashes

    def fact(self, name: str, kind: type[Fact]) -> Fact | None:
        """The fact of this name as a `kind`, None where the stage had none; raises StoreError for another."""
        if name not in self.facts:
            return None
        try:
            return TypeAdapter(kind).validate_python(self.facts[name], strict=False)
        except ValidationError as error:
            raise StoreError(
                f"the fact {name} in {FILE} is not a {kind.__name__}", found=str(error).splitlines()[0]
            ) from None


_ADAPTER = TypeAdapter(StageResult)


def write_result(
    out: Path,
    *,
    gates: Sequence[Gate] = (),
    facts: Mapping[str, Any] | None = None,
    ships: Sequence[str] = (),
) -> None:
    """Add to `out/stage.json`: gates and files after those that are there, facts over those of the same name.

    A stage calls it as often as it has something to say; a gate is written before it is held against its
    limit, so that a failed one leaves its numbers.
    """
    before = read_result(out)
    result = StageResult(
        gates=(*before.gates, *gates),
        facts={**before.facts, **(facts or {})},
        ships=tuple(dict.fromkeys((*before.ships, *ships))),
    )
    (out / FILE).write_text(json.dumps(asdict(result), indent=1) + "\n")


def read_result(folder: Path) -> StageResult:
    """What the stage wrote; nothing where it wrote nothing. Raises StoreError for a damaged file."""
    path = folder / FILE
    try:
        return _ADAPTER.validate_json(path.read_bytes())
    except FileNotFoundError:
        return StageResult()
    except ValidationError as error:
        raise StoreError(
            f"{path} is not what a stage writes",
            found=str(error).splitlines()[0],
            next="remove its folder: the next run makes it again",
        ) from None


def gate(name: str, **numbers: float) -> Gate:
    """A gate that was passed, with the numbers it saw."""
    return Gate(name=name, passed=True, numbers=numbers)
