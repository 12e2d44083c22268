"""torch in, ONNX out, by onnxruntime-genai's model builder: attention with its cache is one operator.

A plain graph takes over a thousand small operators a token, and copies the cache each time.
"""

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
from compress.export.parity import check_parity, parity
from compress.export.save import save
from compress.graph import graph_path
from compress.models.architectures import LANGUAGE_MODELS
from compress.models.checkpoint import read_config
from compress.models.kind import check_architecture
from compress.models.loading import from_folder
from compress.system.memory import give_back
from compress.system.silence import printed_to
from compress.tasks.language_modeling.model import CausalLM

log = logging.getLogger(__name__)
ADVICE = "try export=torch"


def export(config: GenaiExport, checkpoint: Path, splits: Path, out: Path) -> None:
    """Write the graph, its weights beside it and `genai_config.json`.

    Raises GateError when ONNX and torch differ on real text by more than the config allows, ModelError for
    an architecture that the builder does not know, and CompressError for a model that it cannot export.
    """
    check_architecture([config], read_config(checkpoint), CausalLM.task)
    path = graph_path(out)
    save(_build(checkpoint, out), path, beside=True)
    give_back()
    texts = load_texts(splits).calibration.texts
    numbers = parity(CausalLM.open(checkpoint), path, texts, ADVICE, cached=True)
    check_parity(numbers, config, out, ADVICE)


def _build(checkpoint: Path, out: Path) -> onnx_ir.Model:
    """What the builder's `create_model` does, for a module that we open, without its graph's files."""
    try:
        with torch.no_grad(), printed_to(log):
            builder = _builder(checkpoint, out)
            builder.make_model(str(checkpoint))
            builder.model.graph.sort()
            builder.make_genai_config(str(checkpoint), {}, str(out))
            keep_last(builder.model)
            return builder.model  # type: ignore[no-any-return]
    except Exception as error:  # whatever the builder stumbles over
        raise CompressError(
            "onnxruntime-genai's builder cannot export the model",
            found=" ".join(f"{type(error).__name__}: {error}".split())[:300],
            next=ADVICE,
        ) from error


def _builder(checkpoint: Path, out: Path) -> Any:
    """The builder of the checkpoint's architecture, in float32 for CPUs."""
    from onnxruntime_genai.models import builders

    config = from_folder(transformers.AutoConfig, checkpoint)
    architecture = LANGUAGE_MODELS[config.model_type]
    name, rope = architecture.builder, config.rope_parameters
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
            """The builder alone holds it, and lets go of it before it is written. Layers have widths of their
            own, to which stock transformers leaves their padding."""
            module: Any = CausalLM.open(Path(input_path)).module
            embedding = module.get_input_embeddings()  # the builder's scale of Gemma's has two decimals
            self.embed_attrs["scale"] = getattr(embedding, "scalar_embed_scale", self.embed_attrs["scale"])
            return module  # type: ignore[no-any-return]

        def make_attention(self, layer_id: int, *given: Any, **named: Any) -> None:
            self.attention_attrs["rope"] = rotated[layer_id]  # SmolLM3's builder rotates in all layers
            super().make_attention(layer_id, *given, **named)

        def make_mlp(self, layer_id: int, mlp: Any, *given: Any, **named: Any) -> None:
            self.intermediate_size = mlp.down_proj.in_features  # the config has one for all layers
            super().make_mlp(layer_id, mlp, *given, **named)

        def make_key_value_cache_shape(self, layer_id: int, shape: list[Any]) -> list[Any]:
            return [*shape[:-1], self.head_size]  # left open for a cache in integers, which we do not make

    float32 = onnx_ir.DataType.FLOAT
    options = {"hf_token": "false", "hf_remote": False, "windowed_kv_cache": False}
    builder: Any = Opened(config, float32, float32, "cpu", str(out), options)
    builder.model_type = architecture.runtime_type or builder.model_type
    return builder
