"""torch in, ONNX out."""

from dataclasses import replace
from pathlib import Path

from compress.config import ExportConfig, OptimumExport
from compress.registry import implementation


def plain(config: ExportConfig) -> ExportConfig:
    """The same export without rewriting: the baseline is what everybody exports."""
    assert isinstance(config, OptimumExport)
    return replace(config, fuse=False)


def export(config: ExportConfig, checkpoint: Path, splits: Path, out: Path) -> None:
    """Export `checkpoint` to `out/model.onnx`, proven equal on texts of the calibration split."""
    from compress.export import optimum  # noqa: F401  registers itself; takes torch along

    implementation(config)(config, checkpoint, splits, out)
