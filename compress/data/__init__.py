"""Splits of data that never share an example: calibration, train, select, test, and judged pairs."""

import json
from pathlib import Path

from compress.config.data import DataConfig, Documents, ImageData, TextData
from compress.data import documents as _documents
from compress.data import images as _images
from compress.data import splits as _texts
from compress.data.images import ImageSplit, ImageSplits, load_images
from compress.data.splits import PairSet, Splits, TextSplit, load_texts
from compress.registry import implementation
from compress.sources import identity

__all__ = [
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
    return load_images(folder) if kind == _images.KIND else load_texts(folder)


def input_digests(config: DataConfig) -> dict[str, str]:
    """Name -> digest of every file that `open_splits` would read."""
    if isinstance(config, ImageData):
        return {
            name: identity(each.source, each.sha256)
            for name, each in (("train_set", config.train_set), ("test_set", config.test_set))
        }
    if isinstance(config, Documents):
        return _documents.input_digests(config)
    assert isinstance(config, TextData)
    return _texts.input_digests(config)
