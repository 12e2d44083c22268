"""torch in, physically smaller torch out."""

from pathlib import Path

from compress.config import PruneConfig
from compress.prune import structured as _structured  # noqa: F401  registers itself
from compress.registry import implementation


def prune(config: PruneConfig, checkpoint: Path, splits: Path, out: Path) -> None:
    """Write a smaller checkpoint and `prune.json`; statistics come from the calibration split."""
    implementation(config)(config, checkpoint, splits, out)
