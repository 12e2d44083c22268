"""torch in, physically smaller torch out."""

from pathlib import Path

from compress.config import PruneConfig
from compress.registry import implementation


def prune(config: PruneConfig, checkpoint: Path, splits: Path, out: Path) -> None:
    """Write a smaller checkpoint and `prune.json`; statistics come from the calibration split."""
    from compress.prune import channels, structured  # noqa: F401  register themselves; take torch along

    implementation(config)(config, checkpoint, splits, out)
