"""Checkpoints that transformers 4.57 reads as transformers 5 does.

Transformers 5 writes its own layout. 4.57 takes what it does not find there for a default (a base of 10000 of
the rotation, say), without a word. What differs is written both ways; transformers 5 reads either.
"""

import json
from pathlib import Path
from typing import Any

from compress.models.checkpoint import read_json

# Bases of the rotation in full and in sliding attention, where 4.57 looks for them.
_BASES = ("rope_theta", "rope_local_base_freq")
_OTHER_BASES = {"modernbert": ("global_rope_theta", "local_rope_theta")}
_MARKS = tuple(f"{kind}_token" for kind in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
_CLEANING = "clean_up_tokenization_spaces"
_CLEANING_OF_BPE = f"{_CLEANING}_for_bpe_even_though_it_will_corrupt_output"
_OF_THE_SESSION = ("backend", "is_local", "local_files_only")  # of the tokenizer that was saved, no settings


def write_for_both(folder: Path) -> None:
    """Complete config.json and tokenizer_config.json of the checkpoint that 5 wrote to `folder`."""
    backend = folder / "tokenizer.json"
    merges = backend.is_file() and read_json(backend)["model"].get("type") == "BPE"
    for name, completed in (
        ("config.json", _config),
        ("tokenizer_config.json", lambda settings: _tokenizer(settings, merges)),
    ):
        path = folder / name
        if path.is_file():
            content = json.dumps(completed(read_json(path)), indent=2, ensure_ascii=False)
            path.write_text(content + "\n", "utf-8")


def _config(config: dict[str, Any]) -> dict[str, Any]:
    """With `rope_theta`, `rope_scaling` and their like beside `rope_parameters`."""
    rope = config.get("rope_parameters")
    if not rope:
        return config
    bases = _OTHER_BASES.get(config["model_type"], _BASES)
    full, sliding = rope.get("full_attention", rope), rope.get("sliding_attention") or {}
    former = {
        name: part["rope_theta"]
        for name, part in zip(bases, (full, sliding), strict=True)
        if "rope_theta" in part
    }
    if not former:  # a type without rotation: the key is somebody's slip
        return config
    scaling = {key: value for key, value in full.items() if key != "rope_theta"}
    if "partial_rotary_factor" in scaling:
        former["partial_rotary_factor"] = scaling.pop("partial_rotary_factor")
    if scaling.get("rope_type", "default") != "default":
        if config["model_type"] == "phi3":  # takes these three, and the length from elsewhere
            scaling = {"type": scaling["rope_type"]} | {
                name: scaling[name] for name in ("short_factor", "long_factor")
            }
        former["rope_scaling"] = scaling
    return config | former


def _tokenizer(settings: dict[str, Any], merges: bool) -> dict[str, Any]:
    """Without what 4.57 does not know, and without nulls, which transformers 5 refuses; marks may be none.

    `merges`: whether tokens are made by BPE. 5 does not take back spaces of those, whatever the setting says;
    4.57 would.
    """
    settings = {
        key: value
        for key, value in settings.items()
        if key not in _OF_THE_SESSION and (value is not None or key in _MARKS)
    }
    if settings.get("tokenizer_class") == "TokenizersBackend":  # what tokenizer.json says, and nothing else
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
        settings.setdefault("model_input_names", ["input_ids", "attention_mask"])
        settings = dict.fromkeys(_MARKS) | settings  # else those of the class that goes with the model type
    if merges and settings.get(_CLEANING) and not settings.get(_CLEANING_OF_BPE):
        settings[_CLEANING] = False
    if isinstance(settings.get("extra_special_tokens"), list):
        settings["additional_special_tokens"] = settings.pop("extra_special_tokens")
    return settings
