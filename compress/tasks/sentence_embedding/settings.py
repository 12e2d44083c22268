"""What the files of sentence-transformers say of an encoder, beside config.json and its tokenizer.

A folder with modules.json lists its modules there. One without is to sentence-transformers a plain model of
transformers, whose states it averages; it then reads none of these files. Keys that would change embeddings
in a way that is not done here are refused by name.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from compress.errors import ModelError, did_you_mean
from compress.models.checkpoint import read_json
from compress.models.published_task import other_task

SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")
_FORMER_POOLINGS = {  # before sentence-transformers 5.4: a switch for each, in this order
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
POOLINGS = tuple(_FORMER_POOLINGS.values())
_TRANSFORMER_FILES = (  # the first that there is
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
# Values of their keys with which nothing is done otherwise; None: whatever it is.
_TRANSFORMER_KEYS: dict[str, tuple[Any, ...] | None] = {
    "max_seq_length": None,
    "do_lower_case": None,
    "unpad_inputs": None,
    "transformer_task": ("feature-extraction",),
    "modality_config": ({"text": {"method": "forward", "method_output_name": "last_hidden_state"}},),
    "module_output_name": ("token_embeddings",),
    **dict.fromkeys(
        ("query_length", "document_length", "query_expansion", "tokenizer_name_or_path"), (None,)
    ),
    **dict.fromkeys(("model_args", "config_args", "tokenizer_args"), (None, {})),
    **dict.fromkeys(("model_kwargs", "config_kwargs", "processor_kwargs", "processing_kwargs"), (None, {})),
}
ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid")  # of torch.nn, without arguments
_DENSE_KEYS: dict[str, tuple[Any, ...] | None] = {
    **dict.fromkeys(("in_features", "out_features", "bias", "activation_function")),
    "module_input_name": ("sentence_embedding",),
    "module_output_name": (None, "sentence_embedding"),
    "use_residual": (False,),
}
_ORDER = re.compile(r"Transformer Pooling( Dense)*( Normalize)?")
_POOLING_KEYS = {
    "embedding_dimension",
    "word_embedding_dimension",
    "pooling_mode",
    "include_prompt",
    *_FORMER_POOLINGS,
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How an encoder makes embeddings of its backbone's states, and what it is given."""

    poolings: tuple[str, ...] = ("mean",)  # joined, in this order
    dense: tuple[tuple[str, str], ...] = ()  # of each layer behind them: its folder, and a class of torch.nn
    normalize: bool = False
    dimensions: int | None = None  # of an embedding's first numbers, which are all that is given; None: all
    max_tokens: int | None = None  # where texts are cut; None: as the tokenizer and config.json say
    lowercase: bool = False  # before the tokenizer sees a text
    prompt: str = ""  # in front of every text
    prompts: Mapping[str, str]  # all that have a name, for whoever uses the model
    similarity: str = "cosine"


def read_settings(folder: Path) -> Settings:
    """Raises ModelError for what is not done here, or what sentence-transformers would not open."""
    if not (folder / "modules.json").is_file():
        _check_plain(_read(folder / "config.json"))
        return Settings(prompts={})
    modules = _modules(folder)
    paths = dict(modules)
    described = _read(folder / "config_sentence_transformers.json")
    transformer = next(filter(None, (_read(folder / name) for name in _TRANSFORMER_FILES)), {})
    _check_keys(transformer, _TRANSFORMER_KEYS, "Transformer", "keys without effect, or plain text")
    max_tokens = transformer.get("max_seq_length")
    if max_tokens is not None and (type(max_tokens) is not int or max_tokens < 1):
        raise _refusal(
            f"max_seq_length = {max_tokens!r} of the module Transformer", "a number from 1, or null"
        )
    prompts = {name: text or "" for name, text in (described.get("prompts") or {}).items()}
    poolings, with_prompt = _poolings(_read(folder / paths["Pooling"] / "config.json"))
    if not with_prompt and any(prompts.values()):
        raise _refusal(
            "include_prompt = false of the module Pooling, with prompts", "prompts that are pooled too"
        )
    return Settings(
        poolings=poolings,
        dense=tuple((place, _activation(folder / place)) for kind, place in modules if kind == "Dense"),
        normalize="Normalize" in paths,
        dimensions=described.get("truncate_dim"),
        max_tokens=max_tokens,
        lowercase=bool(transformer.get("do_lower_case")),
        prompt=_default_prompt(described.get("default_prompt_name"), prompts),
        prompts=prompts,
        similarity=_similarity(described.get("similarity_fn_name")),
    )


def _check_plain(config: Mapping[str, Any]) -> None:
    """sentence-transformers takes the last state of a language model."""
    [kind, *_] = config.get("architectures") or [""]
    if kind.endswith("ForCausalLM") and config.get("is_causal", True):
        advice = other_task(config, "a sentence encoder")
        found = f"{kind} in config.json, without modules.json"
        raise _refusal(found, "an encoder, or a list of modules", advice)


def limit_tokens(folder: Path, tokens: int) -> None:
    """Correct a `max_seq_length` above the `tokens` that the model can count, by which others fail."""
    for path in (folder / name for name in _TRANSFORMER_FILES):
        settings = _read(path)
        if (settings.get("max_seq_length") or 0) > tokens:
            path.write_text(json.dumps({**settings, "max_seq_length": tokens}, indent=2), "utf-8")


def _modules(folder: Path) -> list[tuple[str, str]]:
    """Kind and folder of each module, in their order."""
    listed = read_json(folder / "modules.json")
    kind = _read(folder / "config_sentence_transformers.json").get("model_type", "SentenceTransformer")
    if kind != "SentenceTransformer":
        raise _refusal(f"model_type = {kind}", "SentenceTransformer")
    try:
        types = [str(each["type"]) for each in listed]
        places = [str(each["path"]) for each in listed]
    except (TypeError, KeyError):
        raise ModelError(
            f"{folder / 'modules.json'} does not list modules",
            found=str(listed)[:100],
            allowed="objects with type and path",
            next="fetch the model again",
        ) from None
    kinds = [name.rpartition(".")[2] for name in types]
    own = all(name.startswith("sentence_transformers.") for name in types)
    if not own or not _ORDER.fullmatch(" ".join(kinds)):
        raise _refusal(
            ", ".join(types) or "no modules", "Transformer, Pooling, Dense, Normalize in this order"
        )
    for place in places:
        if PurePosixPath(place).is_absolute() or ".." in PurePosixPath(place).parts:
            raise _refusal(f"a module outside the folder: {place}", "paths within the folder")
    if places[0] not in ("", "."):
        raise _refusal(f"the module Transformer in {places[0]}", "config.json beside modules.json")
    modules = list(zip(kinds, places, strict=True))
    normalize = dict(modules).get("Normalize")
    for key, value in (_read(folder / normalize / "config.json") if normalize else {}).items():
        if key in ("module_input_name", "module_output_name") and value not in (None, "sentence_embedding"):
            raise _refusal(f"{key} = {value} of the module Normalize", "sentence_embedding")
    return modules


def _check_keys(
    settings: Mapping[str, Any], known: Mapping[str, tuple[Any, ...] | None], module: str, allowed: str
) -> None:
    for key, value in settings.items():
        values = known.get(key, ())
        if values is not None and value not in values:
            raise _refusal(f"{key} = {value} of the module {module}", allowed)


def _activation(folder: Path) -> str:
    """Name of a class of torch.nn; sentence-transformers takes Tanh where none is given."""
    settings = _read(folder / "config.json")
    _check_keys(settings, _DENSE_KEYS, "Dense", "an embedding in, an embedding out, no residual")
    given = str(settings.get("activation_function", "torch.nn.modules.activation.Tanh"))
    name = given.rpartition(".")[2]
    if not given.startswith("torch.nn.") or name not in ACTIVATIONS:
        raise _refusal(f"activation_function = {given} of the module Dense", did_you_mean(name, ACTIVATIONS))
    return name


def _poolings(settings: Mapping[str, Any]) -> tuple[tuple[str, ...], bool]:
    """Names of `POOLINGS`, and whether prompts are pooled too."""
    if not settings or (unknown := sorted(settings.keys() - _POOLING_KEYS)):
        found = (
            f"{', '.join(unknown)} of the module Pooling"
            if settings
            else "no config.json of the module Pooling"
        )
        raise _refusal(found, ", ".join(sorted(_POOLING_KEYS)))
    given = settings.get("pooling_mode")
    if given is None:
        given = [mode for key, mode in _FORMER_POOLINGS.items() if settings.get(key)] or ["mean"]
    modes = (given,) if isinstance(given, str) else tuple(given)
    for mode in modes:
        if mode not in POOLINGS:
            raise _refusal(f"pooling_mode = {mode}", did_you_mean(str(mode), POOLINGS))
    return modes, bool(settings.get("include_prompt", True))


def _default_prompt(name: str | None, prompts: Mapping[str, str]) -> str:
    named = {"query": "", "document": "", **prompts}  # the first two are always there
    if name is not None and name not in named:
        raise _refusal(f"default_prompt_name = {name}", ", ".join(named))
    return named[name] if name is not None else ""


def _similarity(name: str | None) -> str:
    if name is not None and name not in SIMILARITIES:
        raise _refusal(f"similarity_fn_name = {name}", did_you_mean(name, SIMILARITIES))
    return name or "cosine"


def _read(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is no file."""
    content = read_json(path) if path.is_file() else {}
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds no settings", found=type(content).__name__, allowed="an object")
    return content


def _refusal(found: str, allowed: str, advice: str | None = None) -> ModelError:
    return ModelError(
        "the encoder embeds in a way that is not exported",
        found=found,
        allowed=allowed,
        next=advice or "see docs/encoders.md for what is read",
    )
