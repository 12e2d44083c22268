"""torch in, physically smaller torch out."""

from pathlib import Path

from compress.config import PruneConfig
from compress.registry import implementation


def prune(config: PruneConfig, checkpoint: Path, splits: Path, out: Path) -> None:
    """Write a smaller checkpoint and `prune.json`; statistics come from the calibration split."""
    from compress.prune import structured  # noqa: F401  registers itself; takes torch along

    implementation(config)(config, checkpoint, splits, out)
