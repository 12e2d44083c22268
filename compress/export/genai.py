"""torch in, ONNX out, by onnxruntime-genai's model builder: attention with its cache is one operator.

A plain graph takes over a thousand small operators a token, and copies the cache each time.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import torch
import transformers
from torch import Tensor, nn

from compress.config.export import GenaiExport
from compress.data import load_texts
from compress.errors import CompressError
from compress.export.in_place import Narrow, memory_of, read_in_place
from compress.export.last_logits import keep_last
from compress.export.parity import check_parity, parity
from compress.export.save import save
from compress.graph import graph_path
from compress.models.architectures import LANGUAGE_MODELS
from compress.models.checkpoint import read_config
from compress.models.kind import check_architecture
from compress.models.loading import from_folder
from compress.models.stored import NARROW
from compress.system.memory import give_back
from compress.system.silence import printed_to
from compress.tasks.language_modeling.model import CausalLM

log = logging.getLogger(__name__)
EMPTY = onnx_ir.tensor(np.zeros((0, 0), np.float32))
ADVICE = "try export=torch"


def export(config: GenaiExport, checkpoint: Path, splits: Path, out: Path) -> None:
    """Write the graph, its weights beside it and `genai_config.json`.

    Raises GateError when ONNX and torch differ on real text by more than the config allows, ModelError for
    an architecture that the builder does not know, and CompressError for a model that it cannot export.
    """
    check_architecture([config], read_config(checkpoint), CausalLM.task)
    path, model = graph_path(out), CausalLM.open_stored(checkpoint)
    parameters = dict(model.module.named_parameters())  # before the builder cuts some of them apart
    built, narrow = _build(model, checkpoint, out)
    save(built, path, beside=True)
    del built
    if narrow:
        read_in_place(path, narrow, parameters, checkpoint)
    give_back()
    texts = load_texts(splits).calibration.texts
    numbers = parity(model, path, texts, ADVICE, cached=True)
    check_parity(numbers, config, out, ADVICE)


def _build(model: CausalLM, checkpoint: Path, out: Path) -> tuple[onnx_ir.Model, dict[str, Narrow]]:
    """What the builder's `create_model` does, for a module that we open, without its graph's files; and
    those of its initializers that are narrower than float32, which are left empty."""
    try:
        with torch.no_grad(), printed_to(log):
            builder = _builder(model, checkpoint, out)
            builder.make_model(str(checkpoint))
            builder.model.graph.sort()
            builder.make_genai_config(str(checkpoint), {}, str(out))
            keep_last(builder.model)
            return builder.model, builder.narrow
    except Exception as error:  # whatever the builder stumbles over
        raise CompressError(
            "onnxruntime-genai's builder cannot export the model",
            found=" ".join(f"{type(error).__name__}: {error}".split())[:300],
            next=ADVICE,
        ) from error


def _builder(opened: CausalLM, checkpoint: Path, out: Path) -> Any:
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
            """Layers have widths of their own, to which stock transformers leaves their padding."""
            module: Any = opened.module
            self.narrow: dict[str, Narrow] = {}
            self.parameters = {memory_of(each) for each in module.parameters()}
            self.packed: tuple[Tensor, ...] = ()  # what is joined for the next initializer
            embedding = module.get_input_embeddings()  # the builder's scale of Gemma's has two decimals
            self.embed_attrs["scale"] = getattr(embedding, "scalar_embed_scale", self.embed_attrs["scale"])
            return module  # type: ignore[no-any-return]

        def make_initializer(self, tensor: Any, /, name: str, **named: Any) -> None:
            super().make_initializer(tensor, name, **named)
            if isinstance(tensor, Tensor) and tensor.dim() == 2 and tensor.dtype in NARROW:
                turned = not tensor.is_contiguous()
                parts, self.packed = self.packed or (tensor.T if turned else tensor,), ()
                if all(memory_of(each) in self.parameters for each in parts):  # Phi-3's are cut apart
                    self.narrow[name] = Narrow(parts, turned)
                    self.model.graph.initializers[name].const_value = EMPTY

        def make_packed_matmul_float_class(self, *linears: Any, **named: Any) -> Any:
            if linears[0].weight.dtype in NARROW:
                self.packed = tuple(each.weight for each in linears)
            return super().make_packed_matmul_float_class(*linears, **named)

        def make_mlp_proj_fused(self, layer_id: int, mlp: Any, *given: Any, **named: Any) -> None:
            linears = mlp.gate_proj, mlp.up_proj
            if linears[0].weight.dtype in NARROW:
                self.packed = tuple(each.weight for each in linears)
            super().make_mlp_proj_fused(layer_id, mlp, *given, **named)

        def make_attention(self, layer_id: int, *given: Any, **named: Any) -> None:
            self.attention_attrs["rope"] = rotated[layer_id]  # SmolLM3's builder rotates in all layers
            super().make_attention(layer_id, *given, **named)

        def make_mlp(self, layer_id: int, mlp: Any, *given: Any, **named: Any) -> None:
            self.intermediate_size = mlp.down_proj.in_features  # the config has one for all layers
            super().make_mlp(layer_id, mlp, *given, **named)

        def make_key_value_cache_shape(self, layer_id: int, shape: list[Any]) -> list[Any]:
            return [*shape[:-1], self.head_size]  # left open for a cache in integers, which we do not make

    float32 = onnx_ir.DataType.FLOAT
    options = {"hf_token": "false", "hf_remote": False, "windowed_kv_cache": False, "fuse_mlp_gate_up": True}
    builder: Any = Opened(config, float32, float32, "cpu", str(out), options)
    builder.model_type = architecture.runtime_type or builder.model_type
    return builder
