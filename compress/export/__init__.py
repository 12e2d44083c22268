"""torch in, ONNX out."""

from dataclasses import replace
from pathlib import Path

from compress.config.export import ExportConfig, GenaiExport, OptimumExport
from compress.graph import shipped_files
from compress.registry import implementation
from compress.stages.result import write_result


def plain(config: ExportConfig) -> ExportConfig:
    """The same export without rewriting: the baseline is what everybody exports."""
    if isinstance(config, GenaiExport):
        return OptimumExport(fuse=False, max_abs_diff=config.max_abs_diff, min_cosine=config.min_cosine)
    return replace(config, fuse=False) if isinstance(config, OptimumExport) else config


def export(config: ExportConfig, checkpoint: Path, splits: Path, out: Path) -> None:
    """Export `checkpoint` to graphs in `out`, proven equal on texts of the calibration split."""
    implementation(config)(config, checkpoint, splits, out)
    write_result(out, ships=shipped_files(out))
