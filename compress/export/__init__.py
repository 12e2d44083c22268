"""torch in, ONNX out."""

from pathlib import Path

from compress.config.export import ExportConfig, TorchExport
from compress.graph import shipped_files
from compress.registry import implementation
from compress.stages.result import write_result

_DEFAULT_OPSET = 20  # of torch's exporter


def plain(config: ExportConfig) -> ExportConfig:
    """The same gate, and a graph without rewriting: the baseline is what everybody exports."""
    gate = {"max_abs_diff": config.max_abs_diff, "min_cosine": config.min_cosine}
    return TorchExport(opset=_DEFAULT_OPSET, fuse=False, **gate)


def export(config: ExportConfig, checkpoint: Path, splits: Path, out: Path) -> None:
    """Export `checkpoint` to graphs in `out`, proven equal on texts of the calibration split."""
    implementation(config)(config, checkpoint, splits, out)
    write_result(out, ships=shipped_files(out))
