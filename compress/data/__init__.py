"""Splits of data that never share an example: calibration, train, select, test, and judged pairs."""

from pathlib import Path

from compress.config import DataConfig
from compress.data.splits import PairSet, Splits, TextSplit, input_digests, load_splits
from compress.registry import implementation

__all__ = ["PairSet", "Splits", "TextSplit", "input_digests", "load_splits", "open_splits"]


def open_splits(config: DataConfig, out: Path) -> None:
    """Read what `config` names and write its splits into the folder `out`; `load_splits` reads them."""
    implementation(config)(config, out)
