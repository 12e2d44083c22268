"""What an evaluation of any task leaves for the report."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compress.errors import StoreError
from compress.schema.details import ClassificationDetails, LanguageDetails, TextDetails
from compress.schema.estimates import Estimate, Score
from compress.schema.report import CutTexts
from compress.stages.typed_json import read_typed, write_typed

Arrays = Mapping[str, np.ndarray]
# What an ONNX file gives for each batch of its inputs, by name, in their order
Outputs = Callable[[Path, Iterable[Arrays]], Iterator[Arrays]]


@dataclass(frozen=True)
class Scored:
    """A model that is evaluated: the folders of its graph, of its checkpoint and of its scores by example."""

    graph: Path
    checkpoint: Path
    scores: Path
    there: Outputs | None = None  # where its graphs run; by default in onnxruntime here


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What `evaluate` found; a drop is positive where the model is worse than the dense one."""

    primary: str  # a key of quality or fidelity, and of drop_from_dense
    quality: dict[str, Score]
    fidelity: dict[str, Score]
    drop_from_dense: dict[str, Estimate]
    classification: ClassificationDetails | None = None
    language: LanguageDetails | None = None
    text: TextDetails | None = None
    cut: CutTexts | None = None  # of the dense model


def save_quality(quality: Quality, out: Path) -> None:
    write_typed(out / "quality.json", quality, Quality)


def load_quality(folder: Path) -> Quality:
    """What `evaluate` wrote to `folder`. Raises StoreError when it is not there or not readable."""
    return read_typed(folder / "quality.json", Quality, StoreError, "remove the folder and evaluate again")
