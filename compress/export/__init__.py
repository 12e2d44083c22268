"""torch in, ONNX out."""

from dataclasses import replace
from pathlib import Path

from compress.config.export import AutoExport, ExportConfig, GenaiExport, TorchExport
from compress.graph import shipped_files
from compress.registry import implementation
from compress.stages.result import write_result


def in_place(config: ExportConfig) -> ExportConfig:
    """The fused graph of a language model, which reads the checkpoint's own files: the baseline of a large
    one has nothing in float32 on the disk."""
    return config if isinstance(config, GenaiExport | AutoExport) else GenaiExport()


def plain(config: ExportConfig) -> ExportConfig:
    """The same gate, and a graph as torch exports it: the baseline is what everybody has without us.

    At torch's own default opset, 20, attention is in parts, and MiniLM takes 1.1 times as long as by
    optimum-onnx, which would flatter every ratio to it.
    """
    if isinstance(config, TorchExport):
        return replace(config, fuse=False)
    return TorchExport(fuse=False, max_abs_diff=config.max_abs_diff, min_cosine=config.min_cosine)


def export(config: ExportConfig, checkpoint: Path, splits: Path, out: Path) -> None:
    """Export `checkpoint` to graphs in `out`, proven equal on texts of the calibration split."""
    implementation(config)(config, checkpoint, splits, out)
    write_result(out, ships=shipped_files(out))
