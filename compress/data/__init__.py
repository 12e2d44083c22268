"""Splits of data that never share an example: calibration, train, select, test, and judged pairs."""

import json
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from compress.config.data import DataConfig, Split
from compress.data.images import KIND as IMAGES
from compress.data.images import ImageSplit, ImageSplits, load_images
from compress.data.splits import PairSet, Splits, TextSplit, load_texts
from compress.registry import implementation, module_of

__all__ = [
    "HeldOut",
    "ImageSplit",
    "ImageSplits",
    "PairSet",
    "Splits",
    "TextSplit",
    "input_digests",
    "load_images",
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


def open_splits(config: DataConfig, out: Path) -> None:
    """Read what `config` names and write its splits into the folder `out`; `load_splits` reads them."""
    implementation(config)(config, out)


def load_splits(folder: Path) -> Splits | ImageSplits:
    """Of whatever kind `open_splits` wrote.

    Raises DataError when they were changed or two of them share an example.
    """
    try:
        kind = json.loads((folder / "manifest.json").read_text("utf-8")).get("kind")
    except (OSError, ValueError, AttributeError):
        kind = None  # which `load_texts` explains
    return load_images(folder) if kind == IMAGES else load_texts(folder)


def input_digests(config: DataConfig) -> dict[str, str]:
    """Name -> digest of every file that `open_splits` would read."""
    digests: dict[str, str] = import_module(str(module_of(config))).input_digests(config)
    return digests
