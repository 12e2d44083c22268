"""torch in, ONNX out."""

from pathlib import Path

from compress.config import ExportConfig
from compress.export import optimum as _optimum  # noqa: F401  registers itself
from compress.registry import implementation


def export(config: ExportConfig, checkpoint: Path, splits: Path, out: Path) -> None:
    """Export `checkpoint` to `out/model.onnx`, proven equal on texts of the calibration split."""
    implementation(config)(config, checkpoint, splits, out)
