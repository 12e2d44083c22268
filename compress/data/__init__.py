"""Splits of data that never share an example: calibration, train, select, test, and judged pairs."""

import json
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from compress.config.data import DataConfig, Split
from compress.data.splits import PairSet, Splits, TextSplit, load_texts
from compress.registry import implementation, module_of

__all__ = [
    "HeldOut",
    "PairSet",
    "Splits",
    "TextSplit",
    "input_digests",
    "load_splits",
    "load_texts",
    "open_splits",
]


@dataclass(frozen=True)
class HeldOut:
    """What a model is judged by: examples of one split, at most so many, evenly spread."""

    splits: Any  # Splits or ImageSplits, as the task has them
    split: Split
    samples: int | None

    @property
    def part(self) -> Any:
        return getattr(self.splits, self.split.value)


def open_splits(config: DataConfig, out: Path, **model: Any) -> None:
    """Read what `config` names and write its splits into the folder `out`; `load_splits` reads them.

    `model`: `checkpoint`, where `config.reads_model`; `examples`, its kind of them, where `config.labelled`.
    """
    implementation(config)(config, out, **model)


def load_splits(folder: Path) -> Any:
    """Splits of whatever kind `open_splits` wrote: by `load_images` of compress/data/images.py where the
    manifest says images, texts where it says nothing. What reads them has written them, so that the splits'
    own digest holds its code.

    Raises DataError when they were changed or two of them share an example.
    """
    try:
        kind = json.loads((folder / "manifest.json").read_text("utf-8")).get("kind")
    except (OSError, ValueError, AttributeError):
        kind = None  # which `load_texts` explains
    if kind not in {module.name for module in iter_modules(__path__)}:
        return load_texts(folder)
    return getattr(import_module(f"{__name__}.{kind}"), f"load_{kind}")(folder)


def input_digests(config: DataConfig) -> dict[str, str]:
    """Name -> digest of every file that `open_splits` would read."""
    digests: dict[str, str] = import_module(str(module_of(config))).input_digests(config)
    return digests
