"""torch in, physically smaller torch out."""

from pathlib import Path

from pydantic import TypeAdapter

from compress.config.prune import PruneConfig
from compress.registry import implementation
from compress.schema.report import PruningSensitivity

_SENSITIVITY = "sensitivity.json"
_ADAPTER = TypeAdapter(PruningSensitivity)


def prune(config: PruneConfig, checkpoint: Path, splits: Path, out: Path) -> None:
    """Write a smaller checkpoint and `prune.json`; statistics come from the calibration split."""
    implementation(config)(config, checkpoint, splits, out)


def save_pruning_sensitivity(found: PruningSensitivity, out: Path) -> None:
    (out / _SENSITIVITY).write_bytes(_ADAPTER.dump_json(found, indent=2) + b"\n")


def load_pruning_sensitivity(folder: Path) -> PruningSensitivity | None:
    """What `prune` measured of cuts into single layers; None where it was not asked to."""
    path = folder / _SENSITIVITY
    return _ADAPTER.validate_json(path.read_bytes()) if path.is_file() else None
