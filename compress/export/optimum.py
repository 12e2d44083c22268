"""torch in, ONNX out, by optimum's exporter; the parity gate makes the result trustworthy.

optimum itself only warns when the exported numbers differ, and compares one random batch.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import onnx

from compress.config.export import OptimumExport
from compress.data import load_texts
from compress.export.attempt import attempt
from compress.export.decoder import export_decoder
from compress.export.fuse import LOWEST_OPSET, fuse
from compress.export.parity import EXAMPLES, check_parity, parity
from compress.export.strip import strip
from compress.graph import graph_path
from compress.graph.gates import check_operators
from compress.tasks import Model, load

if TYPE_CHECKING:  # what exports encoders is no other version for it
    from compress.tasks.language_modeling.model import CausalLM

log = logging.getLogger(__name__)


def export(config: OptimumExport, checkpoint: Path, splits: Path, out: Path) -> None:
    """Write the graph of a text encoder or a language model.

    Raises GateError when ONNX and torch differ on real inputs by more than the config allows, and
    CompressError when the architecture has an operator that cannot be exported.
    """
    path = graph_path(out)
    model = load(checkpoint)
    if model.stack.architecture.causal:
        export_decoder(config, cast("CausalLM", model), splits, path)
        return
    with attempt():
        _export(model, max(config.opset, LOWEST_OPSET) if config.fuse else config.opset, path)
    strip(path)
    blocks = fuse(path) if config.fuse else 0
    if config.fuse and blocks != (depth := len(model.stack.layers())):
        log.warning("fused the attention of %d of %d layers", blocks, depth)
    check_operators(onnx.load(path, load_external_data=False))
    numbers = parity(model, path, load_texts(splits).calibration.texts[:EXAMPLES])
    advice = "export.fuse=false" if config.fuse else "another opset: export.opset=17"
    check_parity({"fused_layers": blocks, **numbers}, config, out, f"try {advice}")


def _export(model: Model, opset: int, path: Path) -> None:
    from optimum.exporters.onnx import export as optimum_export
    from optimum.exporters.tasks import TasksManager

    module: Any = model.module
    base = TasksManager.get_exporter_config_constructor(
        exporter="onnx",
        model_type=module.config.model_type,
        task="feature-extraction",
        library_name="transformers",
    )

    class EncoderOnnxConfig(base.func):  # type: ignore[misc, name-defined]
        """The architecture's own inputs; of the outputs what the task makes of them, one vector a text."""

        @property
        def inputs(self) -> dict[str, dict[int, str]]:
            return {name: {0: "batch_size", 1: "sequence_length"} for name in model.input_names}

        @property
        def outputs(self) -> dict[str, dict[int, str]]:
            return {name: {0: "batch_size"} for name in model.output_names}

    logging.getLogger("optimum").setLevel(logging.ERROR)
    optimum_export(module, EncoderOnnxConfig(module.config, task="feature-extraction"), path, opset=opset)
