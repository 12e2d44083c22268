"""torch in, ONNX out, by onnxruntime-genai's model builder: attention with its cache is one operator.

A plain graph takes over a thousand small operators a token, and copies the cache each time.
"""

import contextlib
import io
import json
import logging
from pathlib import Path
from typing import Any

import onnx_ir
import torch
import transformers
from torch import nn

from compress.config.export import GenaiExport
from compress.data import load_texts
from compress.errors import CompressError
from compress.export.last_logits import keep_last
from compress.export.parity import check_parity, decoder_parity
from compress.export.save import save
from compress.graph import graph_path
from compress.models.checkpoint import read_config
from compress.models.loading import from_folder
from compress.models.padding import NOTES
from compress.system.memory import give_back
from compress.tasks.language_modeling.model import CausalLM

log = logging.getLogger(__name__)
CONFIG = "genai_config.json"
_BUILDERS = {  # model type -> class of onnxruntime_genai.models.builders
    "llama": "LlamaModel",
    "mistral": "MistralModel",
    "qwen2": "QwenModel",
    "qwen3": "Qwen3Model",
    "gemma3_text": "Gemma3Model",
    "smollm3": "SmolLM3Model",
    "phi3": "Phi3MiniModel",
    "granite": "GraniteModel",
    "ernie4_5": "ErnieModel",
    "hunyuan_v1_dense": "HunyuanDenseV1Model",
    "seed_oss": "LlamaModel",
}
_CACHES = {f"{way}.{part}" for way in ("past_key_values", "present") for part in ("key", "value")}


def export(config: GenaiExport, checkpoint: Path, splits: Path, out: Path) -> None:
    """Write the graph, its weights beside it and `genai_config.json`.

    Raises GateError when ONNX and torch differ on real text by more than the config allows, and
    CompressError for an architecture that the builder does not know.
    """
    path = graph_path(out)
    graph = _build(checkpoint, out)
    keep_last(graph)
    if read_config(checkpoint).get(NOTES["ffn"]):
        _forget_widths(graph)
    save(graph, path, beside=True)
    del graph
    give_back()
    numbers = decoder_parity(CausalLM.open(checkpoint), path, load_texts(splits).calibration.texts)
    check_parity(numbers, config, out, "try export=torch")


def _build(checkpoint: Path, out: Path) -> onnx_ir.Model:
    """What the builder's `create_model` does, for a module that we open, without its files."""
    if (name := read_config(checkpoint)["model_type"]) not in _BUILDERS:
        raise CompressError(
            "onnxruntime-genai's builder does not know the architecture",
            found=name,
            allowed=", ".join(_BUILDERS),
            next="try export=torch",
        )
    said = io.StringIO()
    try:
        with torch.no_grad(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            builder = _builder(checkpoint, out)
            builder.make_model(str(checkpoint))
            builder.model.graph.sort()
            builder.make_genai_config(str(checkpoint), {}, str(out))
            _name_inputs(out / CONFIG, builder.model)
            graph: onnx_ir.Model = builder.model
            return graph
    except (NotImplementedError, RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CompressError(
            "onnxruntime-genai's builder cannot export the model",
            found=" ".join(f"{type(error).__name__}: {error}".split())[:300],
            next="try export=torch",
        ) from error
    finally:
        log.debug("%s", said.getvalue())


def _builder(checkpoint: Path, out: Path) -> Any:
    """The builder of the checkpoint's architecture, in float32 for CPUs."""
    from onnxruntime_genai.models import builders

    config = from_folder(transformers.AutoConfig, checkpoint)
    name = _BUILDERS[config.model_type]
    rope = config.rope_parameters
    if rope.get("rope_type") == "longrope":
        name, rope["type"] = "Phi3MiniLongRoPEModel", "longrope"  # the builder looks for the older key
    if "full_attention" in rope:  # by type of layer, and the builder looks for two keys of older configs
        config.rope_parameters = rope["full_attention"]
        config.rope_local_base_freq = rope["sliding_attention"]["rope_theta"]
    if getattr(config, "sliding_window", None) and not getattr(config, "layer_types", None):
        config.layer_types = ["sliding_attention"] * config.num_hidden_layers
    rotated = getattr(config, "no_rope_layers", None) or [1] * config.num_hidden_layers

    class Opened(getattr(builders, name)):  # type: ignore[misc]
        def load_weights(self, input_path: str) -> nn.Module:
            return _opened(Path(input_path))  # the builder alone holds it, and lets go of it before it writes

        def make_attention(self, layer_id: int, *given: Any, **named: Any) -> None:
            self.attention_attrs["rope"] = rotated[layer_id]  # SmolLM3's builder rotates in all layers
            super().make_attention(layer_id, *given, **named)

    float32 = onnx_ir.DataType.FLOAT
    options = {"hf_token": "false", "hf_remote": False, "windowed_kv_cache": False}
    builder: Any = Opened(config, float32, float32, "cpu", str(out), options)
    for shapes in (builder.input_shapes, builder.output_shapes):
        for key in shapes.keys() & _CACHES:  # left open for a cache in integers, which we do not make
            shapes[key] = [*shapes[key][:3], builder.head_size]
    if config.model_type == "seed_oss":
        builder.model_type = "llama"  # the runtime knows no Seed-OSS
    if config.model_type == "gemma3_text":
        builder.model_type = config.model_type  # the builder would note Gemma3
        builder.embed_attrs["scale"] = config.hidden_size**0.5  # the builder's has two decimals
    return builder


def _opened(checkpoint: Path) -> nn.Module:
    """Layers of different widths as they are: stock transformers leaves them padded to one.

    Gate and up of Phi-3 are split, which the builder would do where the config's one width says.
    """
    model = CausalLM.open(checkpoint)
    module: Any = model.module
    for layer in module.model.layers if getattr(model.config, NOTES["ffn"], None) else ():
        fused = getattr(layer.mlp, "gate_up_proj", None)
        if fused is not None:
            layer.mlp.gate_up_proj = None
            for name, weight in zip(("gate_proj", "up_proj"), fused.weight.chunk(2), strict=True):
                linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
                linear.weight = nn.Parameter(weight)
                setattr(layer.mlp, name, linear)
    return model.module


def _forget_widths(graph: onnx_ir.Model) -> None:
    """The builder notes one width for all feed-forward layers, and onnxruntime warns of it."""
    for value in (value for node in graph.graph for value in node.outputs):
        if "/mlp/" in (value.name or ""):
            value.shape = value.type = None


def _name_inputs(config: Path, graph: onnx_ir.Model) -> None:
    """The builder leaves positions out of its config where the graph does not take them; check, and note."""
    described: dict[str, Any] = json.loads(config.read_text())
    decoder = described["model"]["decoder"]
    inputs = {value.name for value in graph.graph.inputs}
    decoder["inputs"] = {k: v for k, v in decoder["inputs"].items() if "%d" in v or v in inputs}
    config.write_text(json.dumps(described, indent=4) + "\n")
