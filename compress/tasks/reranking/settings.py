"""What the files of a cross-encoder of sentence-transformers say beside config.json and its tokenizer.

A folder without modules.json is a plain classifier of transformers to it, whose config.json names the
activation. What would change scores in a way that is not done here is refused by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.errors import ModelError
from compress.models.checkpoint import read_config, read_json

_ACTIVATIONS = {"Identity": "none", "Sigmoid": "sigmoid"}
# Values with which the module Transformer does nothing that is not done here; None: whatever it is.
_TRANSFORMER_KEYS: dict[str, tuple[Any, ...] | None] = {
    "max_seq_length": None,
    "do_lower_case": (False, None),
    "unpad_inputs": None,
    "transformer_task": ("sequence-classification",),
    "modality_config": ({"text": {"method": "forward", "method_output_name": "logits"}},),
    "module_output_name": ("scores",),
    **dict.fromkeys(("query_length", "document_length", "query_expansion"), (None,)),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    activation: str = "sigmoid"  # of the logit, for the score that is told: sigmoid or none
    max_tokens: int | None = None  # where pairs are cut; None: as the tokenizer and config.json say


def read_settings(folder: Path) -> Settings:
    """Raises ModelError for what is not done here, or for more numbers a pair than one."""
    config = read_config(folder)
    if len(config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}) != 1:
        raise ModelError(
            "the model gives several numbers for a query and a passage",
            found=", ".join(map(str, (config.get("id2label") or {}).values())) or "LABEL_0, LABEL_1",
            allowed="one, by which passages are ranked",
            next="try model=text_classifier",
        )
    if not (folder / "modules.json").is_file():
        named = (config.get("sentence_transformers") or {}).get("activation_fn")
        return Settings(activation=_activation(named or config.get("sbert_ce_default_activation_function")))
    types = [str(each.get("type")) for each in read_json(folder / "modules.json")]
    if [name.rpartition(".")[2] for name in types] != ["Transformer"]:
        raise _refusal(", ".join(types), "the module Transformer alone")
    described = _object(folder / "config_sentence_transformers.json")
    prompts = described.get("prompts") or {}
    if prompts.get(described.get("default_prompt_name")):
        raise _refusal(f"the prompt {prompts[described['default_prompt_name']]!r}", "pairs as they are")
    transformer = _object(folder / "sentence_bert_config.json")
    for key, value in transformer.items():
        allowed = _TRANSFORMER_KEYS.get(key, ())
        if allowed is not None and value not in allowed:
            raise _refusal(f"{key} = {value} of the module Transformer", "keys without effect")
    return Settings(
        activation=_activation(described.get("activation_fn")), max_tokens=transformer.get("max_seq_length")
    )


def _activation(named: str | None) -> str:
    if named is None:
        return "sigmoid"
    if named.startswith("torch.") and (name := named.rpartition(".")[2]) in _ACTIVATIONS:
        return _ACTIVATIONS[name]
    raise _refusal(f"the activation {named}", ", ".join(f"torch.nn.{name}" for name in _ACTIVATIONS))


def _object(path: Path) -> Mapping[str, Any]:
    return read_json(path) if path.is_file() else {}


def _refusal(found: str, allowed: str) -> ModelError:
    return ModelError("the reranker scores in a way that is not exported", found=found, allowed=allowed)
