"""Reading and writing of checkpoint folders, common to all models. Nothing is ever unpickled."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open

from compress.errors import ModelError
from compress.sources import describe, fetch, peek
from compress.system.memory import forget_mapped

if TYPE_CHECKING:  # a server of what ships has no configuration
    from compress.config.model import ModelConfig

# Everything a tokenizer or a sentence-transformers folder consists of, weights and config aside.
_FORMER_PACKAGE = "compress.families."
_COMPANIONS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "sentencepiece.bpe.model",
    "modules.json",
    "config_sentence_transformers.json",
)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a checkpoint's config.json does not tell; lies beside it as compress.json."""

    task: str  # what it is for: the name of a folder of compress.tasks
    source: str
    base_model: str
    license: str
    lineage: tuple[str, ...] = ()  # what was done to it, in words
    kept_layers: tuple[int, ...] | None = None  # their numbers in the dense model, where some were dropped
    kept_tokens: tuple[int, ...] | None = None  # likewise of tokens: the old number by the new one

    def after(self, step: str, **changes: Any) -> Facts:
        return replace(self, lineage=(*self.lineage, step), **changes)


_FACTS = TypeAdapter(Facts)


def facts_of(words: Mapping[str, str]) -> Facts:
    """Of a model that is made here: task, source, base_model and license."""
    return Facts(
        task=words["task"], source=words["source"], base_model=words["base_model"], license=words["license"]
    )


# Checkpoints that artifacts of earlier releases hold name their task so.
_FORMER_TASKS = {
    "encoder": "sentence_embedding",
    "image_classifier": "image_classification",
    "causal_lm": "language_modeling",
}


def fetch_published(
    config: ModelConfig, check: Callable[[dict[str, Any]], None] = lambda described: None
) -> tuple[Path, Facts]:
    """The folder that `config` names, and what is known of it; raises SourceError where it cannot be had.

    `check` sees config.json before the weights are downloaded, where they are apart.
    """
    if (path := peek(config.source, "config.json")) is not None:
        check(read_config(path.parent))
    described = describe(config.source, config.sha256)
    facts = Facts(
        task=config.task,
        source=config.source,
        base_model=config.base_model or config.source.partition(":")[2],
        license=config.license or described.get("license") or "unknown",
    )
    return fetch(config.source, config.sha256), facts


def read_facts(checkpoint: Path) -> Facts:
    """compress.json; raises ModelError where the folder is not a checkpoint of ours."""
    path = checkpoint / "compress.json"
    try:
        content = json.loads(path.read_bytes())
        if "family" in content:
            family = content.pop("family")
            content["task"] = _FORMER_TASKS.get(family, family)
        return _FACTS.validate_python(content)
    except (OSError, ValueError, TypeError) as error:  # the last where it is no object
        raise ModelError(
            f"{checkpoint} is not a checkpoint",
            found=str(error).splitlines()[0],
            allowed="a folder with compress.json, as the stages write it",
            next="import the model first: model.source=path:FOLDER",
        ) from None


def read_facts_of(task: str, checkpoint: Path) -> Facts:
    """The same of a checkpoint of `task`; raises ModelError where it is of another one."""
    facts = read_facts(checkpoint)
    if facts.task != task:
        raise ModelError(
            "an option of the configuration does not work on this kind of model",
            found=facts.task,
            allowed=task,
            next=f"choose options that work on {facts.task}: compress list",
        )
    return facts


def write_facts(facts: Facts, checkpoint: Path) -> None:
    (checkpoint / "compress.json").write_bytes(_FACTS.dump_json(facts, indent=2) + b"\n")


def shipped_files(checkpoint: Path) -> list[str]:
    """All but what the stages tell each other: what the checkpoint is for others."""
    ours = {"compress.json", "summary.json", "check_inputs.npz", "stage.json"}
    files = (p.relative_to(checkpoint).as_posix() for p in checkpoint.rglob("*") if p.is_file())
    return sorted(name for name in files if name not in ours)


def copy_companions(source: Path, checkpoint: Path) -> None:
    """Copy the tokenizer's files, and those of the modules that modules.json lists."""
    for name in (*_COMPANIONS, *_of_modules(source)):
        if (source / name).is_file():
            (checkpoint / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, checkpoint / name)


def _of_modules(source: Path) -> list[str]:
    """What sentence-transformers' modules consist of beside the first, the model; of no place outside the
    folder."""
    if not (source / "modules.json").is_file():
        return []
    places = [PurePosixPath(str(module["path"])) for module in read_json(source / "modules.json")]
    inside = [
        place for place in places if place.parts and not place.is_absolute() and ".." not in place.parts
    ]
    former = [path.name for path in source.glob("sentence_*_config.json")]
    files = ("config.json", "model.safetensors")
    return [*former, *((place / name).as_posix() for place in inside for name in files)]


def read_json(path: Path) -> Any:
    """Content of a file; raises ModelError where it is not JSON."""
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not JSON", found=error, next="fetch the model again") from None


def read_config(folder: Path) -> dict[str, Any]:
    """config.json; raises ModelError where the folder is not a model."""
    path = folder / "config.json"
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise ModelError(
            f"no model in {folder}",
            found=", ".join(sorted(p.name for p in folder.glob("*"))[:8]) or "nothing",
            allowed="a folder with config.json, model.safetensors and a tokenizer",
        ) from None
    if not isinstance(content, dict):
        raise ModelError(f"{path} is not a model's config", found=type(content).__name__, allowed="an object")
    if str(content.get("builder")).startswith(_FORMER_PACKAGE):  # written before the package was renamed
        content["builder"] = content["builder"].replace(_FORMER_PACKAGE, "compress.models.")
    return content


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold the weights: model.safetensors, or those that an index names.

    Raises ModelError where the index names one that is not there.
    """
    index = folder / "model.safetensors.index.json"
    if not index.is_file() or (folder / "model.safetensors").is_file():  # the latter is read where both are
        single = folder / "model.safetensors"
        return [single] if single.is_file() else sorted(folder.glob("*.safetensors"))
    try:
        named = {str(name) for name in read_json(index)["weight_map"].values()}
    except (TypeError, KeyError, AttributeError):
        named = {"what is in which file"}
    missing = sorted(name for name in named if not (folder / name).is_file())
    if missing:
        raise ModelError(
            f"weights are missing in {folder}",
            found=f"{index.name} names {missing[0]}, as {len(missing)} of {len(named)} files not there",
            next="fetch the model again, all files of one revision",
        )
    return [folder / name for name in sorted(named)]


def header(path: Path) -> dict[str, dict[str, Any]]:
    """Name of each tensor of a safetensors file -> dtype, shape, and data_offsets from the beginning on.

    Raises OSError, ValueError or struct.error for what is no such file.
    """
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        if size > path.stat().st_size:
            raise ValueError("no header")
        found: dict[str, Any] = json.loads(file.read(size))
    found.pop("__metadata__", None)
    for tensor in found.values():
        tensor["data_offsets"] = [8 + size + offset for offset in tensor["data_offsets"]]
    return found


def check_weights(folder: Path) -> None:
    """Raise ModelError unless all weights are there, every safetensors file is whole and every number in it
    finite."""
    import torch  # takes seconds, and the rest of this file works without

    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{folder} holds an adapter, which changes the weights of a model",
            found="adapter_config.json",
            allowed="whole weights",
            next="merge it into its model: merge_and_unload of peft, then save_pretrained(folder)",
        )
    weight_files(folder)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickles = [p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.pkl") for p in folder.glob(pattern)]
        raise ModelError(
            f"no safetensors weights in {folder}",
            found=f"pickles, which can run code when opened: {', '.join(pickles)}" if pickles else "none",
            allowed="model.safetensors",
            next="convert them once where you trust them: model.save_pretrained(folder)",
        )
    for path in files:
        try:
            with safe_open(path, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118
                    tensor = tensors.get_tensor(name)
                    if tensor.is_floating_point() and tensor.dtype.itemsize == 1:
                        raise ModelError(
                            f"{path.name} holds quantized weights",
                            found=f"{tensor.dtype} in {name}",
                            allowed="weights in float32, float16 or bfloat16",
                            next="take the model that it was quantized from",
                        )
                    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                        raise ModelError(
                            f"{path.name} holds numbers that are not finite",
                            found=f"NaN or infinity in {name}",
                            next="fetch the weights again; if they are like that at the source, "
                            "the model is broken",
                        )
                    forget_mapped(tensor.data_ptr(), tensor.nbytes)
        except SafetensorError as error:
            raise ModelError(
                f"{path.name} is damaged or not safetensors",
                found=f"{path.stat().st_size} bytes; {error}",
                next="fetch it again: delete the file, or compress cache for a download",
            ) from None
