"""What an evaluation of any task leaves for the report."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from compress.errors import StoreError
from compress.schema.report import ClassificationDetails, Estimate, LanguageDetails, Score
from compress.stages.store import sha256_model


@dataclass(frozen=True)
class Dense:
    """The model that others are compared with: folders of its graph, checkpoint and stored scores."""

    graph: Path
    checkpoint: Path
    scores: Path

    def is_in(self, graph: Path) -> bool:
        """Whether a folder holds the very same graph."""
        return sha256_model(graph / "model.onnx") == sha256_model(self.graph / "model.onnx")


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


def save_quality(found: Quality, out: Path) -> None:
    (out / "quality.json").write_bytes(_ADAPTER.dump_json(found, indent=2) + b"\n")


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
