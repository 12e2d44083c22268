"""A language model with its cache as optimum exports it: plain operators, what everybody starts from."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from compress.config.export import OptimumExport
from compress.data import load_texts
from compress.export.attempt import attempt
from compress.export.parity import check_parity, decoder_parity
from compress.export.strip import strip
from compress.graph.gates import check_operators

if TYPE_CHECKING:  # encoders are exported with this file too
    from compress.tasks.language_modeling.model import CausalLM


def export_decoder(config: OptimumExport, model: CausalLM, splits: Path, path: Path) -> None:
    """Write `path` and prove it. `config.fuse` has no meaning here: export=genai fuses."""
    with attempt(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _export(model, config.opset, path)
    strip(path, weights_beside=True)
    check_operators(onnx.load(path, load_external_data=False))
    numbers = decoder_parity(model, path, load_texts(splits).calibration.texts)
    check_parity(numbers, config, path.parent, "another opset: export.opset=17; or export=genai")


def _export(model: CausalLM, opset: int, path: Path) -> None:
    from optimum.exporters.onnx import export as optimum_export
    from optimum.exporters.tasks import TasksManager

    module: Any = model.module
    constructor = TasksManager.get_exporter_config_constructor(
        exporter="onnx",
        model_type=model.config.model_type,
        task="text-generation-with-past",
        library_name="transformers",
    )
    described = constructor(model.config, task="text-generation", use_past=True, use_past_in_inputs=True)
    logging.getLogger("optimum").setLevel(logging.ERROR)
    optimum_export(module, described, path, opset=opset)
