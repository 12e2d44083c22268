"""What an evaluation of any task leaves for the report."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from compress.errors import StoreError
from compress.schema.report import ClassificationDetails, Estimate, LanguageDetails, Score


@dataclass(frozen=True)
class Scored:
    """A model that is evaluated: the folders of its graph, of its checkpoint and of its scores by example."""

    graph: Path
    checkpoint: Path
    scores: Path


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What `evaluate` found; a drop is positive where the model is worse than the dense one."""

    primary: str  # a key of quality or fidelity, and of drop_from_dense
    quality: dict[str, Score]
    fidelity: dict[str, Score]
    drop_from_dense: dict[str, Estimate]
    classification: ClassificationDetails | None = None
    language: LanguageDetails | None = None


_ADAPTER = TypeAdapter(Quality)


def save_quality(quality: Quality, out: Path) -> None:
    (out / "quality.json").write_bytes(_ADAPTER.dump_json(quality, indent=2) + b"\n")


def load_quality(folder: Path) -> Quality:
    """What `evaluate` wrote to `folder`. Raises StoreError when it is not there or not readable."""
    try:
        return _ADAPTER.validate_json((folder / "quality.json").read_bytes())
    except (OSError, ValidationError) as error:
        raise StoreError(
            f"cannot read the result of an evaluation in {folder}",
            found=str(error).splitlines()[0],
            next="remove the folder and evaluate again",
        ) from None
