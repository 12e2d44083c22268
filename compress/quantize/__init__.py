"""ONNX in, smaller ONNX out."""

from collections.abc import Sequence
from pathlib import Path

from compress.config import QuantizeConfig
from compress.quantize import dynamic as _dynamic  # noqa: F401  registers itself
from compress.quantize import static as _static  # noqa: F401  registers itself
from compress.quantize.coverage import load_coverage
from compress.registry import implementation

__all__ = ["load_coverage", "quantize"]


def quantize(
    config: QuantizeConfig, cpu_flags: Sequence[str], graph: Path, checkpoint: Path, splits: Path, out: Path
) -> None:
    """Quantize `graph/model.onnx` for a CPU with these flags; writes `out/model.onnx` and coverage.json.

    Raises GateError when less of the model became integer than the config asks for.
    """
    implementation(config)(config, cpu_flags, graph, checkpoint, splits, out)
