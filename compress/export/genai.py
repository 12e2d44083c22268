"""torch in, ONNX out, by onnxruntime-genai's model builder: attention with its cache is one operator.

The graph of optimum takes over a thousand small operators a token, and copies the cache each time.
"""

import contextlib
import io
import json
import logging
from pathlib import Path
from typing import Any
from unittest.mock import patch

import onnx
from torch import nn

from compress.config.export import GenaiExport
from compress.data import load_texts
from compress.errors import CompressError
from compress.export.last_logits import keep_last
from compress.export.parity import PARITY, check_parity, decoder_parity
from compress.export.strip import strip
from compress.graph.gates import check_operators
from compress.models.checkpoint import read_config
from compress.models.padding import WIDTHS
from compress.stages.result import gate, write_result
from compress.system.memory import give_back
from compress.tasks.language_modeling.model import CausalLM

log = logging.getLogger(__name__)
CONFIG = "genai_config.json"
DATA = "model.onnx.data"


def export(config: GenaiExport, checkpoint: Path, splits: Path, out: Path) -> None:
    """Write `out/model.onnx`, its weights in `model.onnx_data` and `genai_config.json`.

    Raises GateError when ONNX and torch differ on real text by more than the config allows, and
    CompressError for an architecture that the builder does not know.
    """
    _build(checkpoint, out)
    give_back()
    path = out / "model.onnx"
    _name_inputs(out / CONFIG, path)
    keep_last(path)
    if read_config(checkpoint).get(WIDTHS):
        _forget_widths(path)
    strip(path, weights_beside=True)
    check_operators(onnx.load(path, load_external_data=False))
    numbers = decoder_parity(CausalLM.open(checkpoint), path, load_texts(splits).calibration.texts)
    write_result(out, gates=[gate(PARITY, **numbers)])
    check_parity(numbers, config.max_abs_diff, config.min_cosine, "try export=optimum")


def _build(checkpoint: Path, out: Path) -> None:
    from onnxruntime_genai.models.builder import create_model
    from transformers import AutoModelForCausalLM

    # The builder alone holds what was opened here, and lets go of it before it writes.
    opened = [_opened(checkpoint)]
    said = io.StringIO()
    keep = {"model.onnx", DATA, CONFIG}
    try:
        with (
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
            patch.object(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: opened.pop()),
        ):
            create_model(
                "", str(checkpoint), str(out), "fp32", "cpu", str(out), hf_token="false", hf_remote=False
            )
    except (NotImplementedError, RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CompressError(
            "onnxruntime-genai's builder cannot export the model",
            found=" ".join(f"{type(error).__name__}: {error}".split())[:300],
            next="try export=optimum",
        ) from error
    finally:
        log.debug("%s", said.getvalue())
    for path in out.iterdir():  # tokenizer files come from the checkpoint
        if path.is_file() and path.name not in keep:
            path.unlink()


def _opened(checkpoint: Path) -> nn.Module:
    """Layers of different widths as they are: stock transformers leaves them padded to one.

    Gate and up of Phi-3 are split, which the builder would do where the config's one width says.
    """
    model = CausalLM.open(checkpoint)
    module: Any = model.module
    for layer in module.model.layers if getattr(model.config, WIDTHS, None) else ():
        fused = getattr(layer.mlp, "gate_up_proj", None)
        if fused is not None:
            layer.mlp.gate_up_proj = None
            for name, weight in zip(("gate_proj", "up_proj"), fused.weight.chunk(2), strict=True):
                linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
                linear.weight = nn.Parameter(weight)
                setattr(layer.mlp, name, linear)
    return model.module


def _forget_widths(path: Path) -> None:
    """The builder notes one width for all feed-forward layers, and onnxruntime warns of it."""
    model = onnx.load(path, load_external_data=False)
    kept = [each for each in model.graph.value_info if "/mlp/" not in each.name]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
    onnx.save(model, path)


def _name_inputs(config: Path, path: Path) -> None:
    """The builder leaves positions out of its config where the graph does not take them; check, and note."""
    described: dict[str, Any] = json.loads(config.read_text())
    graph = onnx.load(path, load_external_data=False).graph
    decoder = described["model"]["decoder"]
    taken = {each.name for each in graph.input}
    decoder["inputs"] = {k: v for k, v in decoder["inputs"].items() if "%d" in v or v in taken}
    config.write_text(json.dumps(described, indent=4) + "\n")
