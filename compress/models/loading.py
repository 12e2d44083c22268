"""A model of transformers from the folder of a checkpoint; what does not fit is an error."""

import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

from compress.errors import ModelError
from compress.models.checkpoint import read_config
from compress.models.padding import NOTES, grown
from compress.models.stored import compute_in_float32

_NEXT = "fetch the model again, config.json and all files of the weights of one revision"
# Whatever config.json says: attention that is fused, as ours is, gives none of what it weighs by.
_OUTPUTS = {"return_dict": True, "output_attentions": False, "output_hidden_states": False}
_OF_HEADS = re.compile(  # named by transformers 4; what group 1 names reads the heads, the others give them
    r"layer\.\d+\.attention\."
    r"(?:(?:self|attention)\.(?:query|key|value)|[qkv]_lin|(output\.dense|out_lin))\.(weight|bias)$"
)


def open_stock(
    auto: Any,
    folder: Path,
    attention: str | None,
    needless: str = "",
    foreign: str = "",
    dtype: torch.dtype = torch.float32,
) -> Any:
    """The model that `auto`, a class of transformers, opens, in float32 and for inference. Weights may be of
    a narrower `dtype` (`compress.models.stored`).

    `needless` is a pattern of tensors that the folder may lack, which become zeros, `foreign` one of those
    that it may have beside the model's; empty: none. Raises ModelError for any other tensor too few or too
    many, or of another size than config.json says.
    """
    with tempfile.TemporaryDirectory() as scratch:
        module, info = from_folder(
            auto,
            _with_all_heads(folder, Path(scratch)),
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            dtype=dtype,
            attn_implementation=attention,
            **_OUTPUTS,
        )
    wrong = {
        f"the weights in {folder} do not fit their config.json": [
            f"{name} {list(found)}, not {list(wanted)}" for name, found, wanted in info["mismatched_keys"]
        ],
        f"weights are missing in {folder}": _others(info["missing_keys"], needless),
        f"{folder} has unexpected weights, or layers its config.json lacks": _others(
            info["unexpected_keys"], foreign
        ),
    }
    for what, names in wrong.items():
        if names:
            raise ModelError(
                what,
                found=f"{len(names)} tensors, e.g. {min(names)}",
                allowed="every tensor of the model that config.json describes, and no other",
                next=_NEXT,
            )
    for name, parameter in module.named_parameters():
        if name in info["missing_keys"]:  # random, it would change digests
            nn.init.zeros_(parameter)
    _fix_rotation(module)
    if dtype != torch.float32:
        _restore_scale(module)
        if any(each.dtype == dtype for each in module.buffers()):  # no weight either, and rounded for good
            return open_stock(auto, folder, attention, needless, foreign)
        compute_in_float32(module)
    return module.eval()


def check_builds(auto: Any, described: Mapping[str, Any]) -> None:
    """Raise ModelError unless transformers makes a model of `auto`, one of its classes, of a config.json of
    this content: what can be told before weights are fetched."""
    try:
        config = transformers.CONFIG_MAPPING[described["model_type"]].from_dict(dict(described))
        with torch.device("meta"):
            auto.from_config(config, attn_implementation="eager")
    except Exception as error:  # transformers checks little of what the files say, and raises all there is
        raise ModelError(
            f"{auto.__name__} of transformers makes no model of config.json",
            found=" ".join(f"{type(error).__name__}: {error}".split())[:300],
            allowed="values that it takes",
            next="fetch config.json again, or change what is named there",
        ) from error


def from_folder(auto: Any, folder: Path, **options: Any) -> Any:
    """What `auto`, a class of transformers, opens there; raises ModelError with the reason it cannot."""
    try:
        return auto.from_pretrained(str(folder), local_files_only=True, **options)
    except Exception as error:  # transformers checks little of what the files say, and raises all there is
        raise ModelError(
            f"the weights in {folder} do not fit their config.json, or transformers does not know it",
            found=" ".join(f"{type(error).__name__}: {error}".split())[:300],
            allowed=f"a folder that {auto.__name__} opens",
            next=_NEXT,
        ) from error


def _fix_rotation(module: nn.Module) -> None:
    """Leave "dynamic" rotations as they are up to max_position_embeddings, which is as far as we read:
    the branch that stretches them for longer texts cannot be exported.
    """
    each: Any
    for each in module.modules():
        kinds = getattr(each, "rope_type", None)
        if isinstance(kinds, dict):
            each.rope_type = {layers: _fixed(kind) for layers, kind in kinds.items()}
        elif isinstance(kinds, str):
            each.rope_type = _fixed(kinds)


def _restore_scale(module: nn.Module) -> None:
    """Give Gemma's scale of the embedding, which is no weight, the digits that a narrower type took."""
    part: Any
    for part in module.modules():
        if hasattr(part, "scalar_embed_scale"):
            part.embed_scale = torch.tensor(part.scalar_embed_scale, dtype=torch.float32)


def _fixed(rope_type: str) -> str:
    return "default" if rope_type == "dynamic" else rope_type


def _others(names: Any, pattern: str) -> list[str]:
    return [name for name in names if not (pattern and re.search(pattern, name))]


@contextmanager
def with_all_heads(folder: Path) -> Iterator[Path]:
    """`folder`, or, where transformers 4 cut heads of its layers, which 5 does not open, a whole copy with
    zeros in their place, as long as the context lasts."""
    with tempfile.TemporaryDirectory() as scratch:
        (place := Path(scratch) / folder.name).mkdir()
        whole = _with_all_heads(folder, place)
        if whole == place:
            written = {path.name for path in place.iterdir()}
            shutil.copytree(folder, place, dirs_exist_ok=True, ignore=lambda *_: written)
        yield whole


def _with_all_heads(folder: Path, scratch: Path) -> Path:
    """`folder`, or, where transformers 4 cut heads of its layers, a copy as `save_padded` writes it now.

    4 names those that went in `pruned_heads`, {layer: numbers}, and cuts the matrices; 5 knows nothing of it.
    """
    described = read_config(folder)
    cut = described.pop("pruned_heads", None)
    if not cut:
        return folder
    config = from_folder(transformers.AutoConfig, folder)
    if not hasattr(config, "num_attention_heads"):  # 4 never cut those of such a type
        return folder
    gone = [len(cut.get(str(layer), ())) for layer in range(config.num_hidden_layers)]
    described[NOTES["heads"]] = [config.num_attention_heads - count for count in gone]
    (scratch / "config.json").write_text(json.dumps(described))
    for path in folder.glob("*.safetensors"):
        weights = load_file(path)
        for name, tensor in weights.items():
            found = _OF_HEADS.search(name)
            if found and not (found[1] and found[2] == "bias"):
                weights[name] = grown(tensor, 1 if found[1] else 0, 1, config.hidden_size)
        save_file(weights, scratch / path.name, {"format": "pt"})
    for path in folder.glob("*.safetensors.index.json"):
        (scratch / path.name).write_bytes(path.read_bytes())
    return scratch
