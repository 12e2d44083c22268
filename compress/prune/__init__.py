"""torch in, physically smaller torch out."""

from pathlib import Path

from compress.config.prune import PruneConfig
from compress.models import shipped_files
from compress.registry import implementation
from compress.stages.result import write_result


def prune(config: PruneConfig, checkpoint: Path, splits: Path, out: Path) -> None:
    """Write a smaller checkpoint; statistics come from the calibration split.

    The fact `pruning` says what was cut, `pruning_sensitivity` what cuts into single layers cost.
    """

    implementation(config)(config, checkpoint, splits, out)
    write_result(out, ships=shipped_files(out))
