"""ONNX in, smaller ONNX out."""

import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import onnx

from compress.config.evaluate import EvaluateConfig
from compress.config.quantize import Float16Blocks, Int8, IntegerBlocks, QuantizeConfig
from compress.graph import graph_files, graph_path, named_graphs, shipped_files
from compress.graph.gates import check_interface, check_operators
from compress.graph.wide import wide
from compress.registry import implementation
from compress.schema.quantization import Sensitivity
from compress.stages.result import read_result, write_result


def quantize(
    config: QuantizeConfig,
    cpu_flags: Sequence[str],
    graph: Path,
    checkpoint: Path,
    splits: Path,
    out: Path,
    **evaluate: EvaluateConfig,
) -> None:
    """Quantize the graphs in `graph` for a CPU with these flags, into graphs of the same names in `out`.

    `evaluate`: by this name what the task is scored by, for a goal that is about it.

    Raises GateError when less of the model became integer than the config asks for, a layer broke, inputs
    or outputs changed, or the installed onnxruntime lacks an operator.
    """
    with nullcontext(graph) if isinstance(config, IntegerBlocks) else wide(graph, out) as read:
        implementation(config)(config, cpu_flags, read, checkpoint, splits, out, **evaluate)
    for name, path in named_graphs(graph).items():
        before, after = (onnx.load(one, load_external_data=False) for one in (path, graph_path(out, name)))
        check_interface(before.graph, after.graph)
        check_operators(after)
    for name in set(shipped_files(graph)) - {path.name for path in graph_files(graph)}:
        shutil.copy(graph / name, out / name)  # of the same inputs and outputs
    write_result(out, ships=shipped_files(out))


def watches_metric(config: QuantizeConfig) -> bool:
    """Whether it has to know what the task is scored by."""
    return getattr(config, "max_drop", None) is not None


def also_measured(config: QuantizeConfig, quantized: Path) -> list[tuple[str, QuantizeConfig]]:
    """What is made and measured beside a result, by name: all layers rounded, where some stayed in float.

    The difference is what `min_cosine` or `max_drop` costs in time and gains in quality.
    """
    sensitivity = read_result(quantized).fact("sensitivity", Sensitivity)
    if sensitivity is None or not any(layer.left_out for layer in sensitivity.layers):
        return []
    assert isinstance(config, Int8 | Float16Blocks)
    plain = replace(config, max_drop=None)
    return [(f"{config.variant}_all", replace(plain, min_cosine=None) if isinstance(plain, Int8) else plain)]
