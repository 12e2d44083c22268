"""Checkpoints of timm, as its hub serves them and its push_to_hf_hub writes them.

config.json names an `architecture` and how images are prepared; it becomes that of a checkpoint of ours whose
builder is `create`. timm is imported only to build the net: the base does without it.
"""

import re
from collections.abc import Mapping
from typing import Any, cast

from torch import nn

from compress.errors import ModelError

BUILDER = "compress.models.timm_checkpoint:create"
_PIL = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}  # as preprocessor_config.json numbers them
_MAKES_IT_LOAD = {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"}


def is_timm(config: Mapping[str, Any]) -> bool:
    """Whether this is a config.json of timm; transformers' have a model_type."""
    return "architecture" in config and "model_type" not in config


def create(architecture: str, num_classes: int, **arguments: Any) -> nn.Module:
    """timm's net of that name with random weights. A checkpoint chooses the arguments, so nothing is fetched
    or unpickled for them; raises ModelError where one would."""
    import timm

    if asked := sorted(_MAKES_IT_LOAD & arguments.keys()):
        raise ModelError("the config.json wants timm to load something", found=", ".join(asked))
    if not re.fullmatch(r"[\w.-]+", architecture):
        raise ModelError("not a name of timm's", found=architecture, allowed="what timm.list_models() lists")
    return cast(nn.Module, timm.create_model(architecture, num_classes=num_classes, **arguments))


def converted(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What config.json and preprocessor_config.json of a checkpoint of ours say in place of timm's `config`.

    Raises ModelError where `config` lacks a number it needs.
    """
    given = config.get("pretrained_cfg") or config  # older ones have all in one place
    arguments = dict(config.get("model_args") or {})
    try:
        channels, height, width = (int(size) for size in given["input_size"])
        classes = int(config.get("num_classes", given.get("num_classes")))
        names = config.get("label_names") or given.get("label_names") or range(classes)
        mean, deviation = ([float(x) for x in given[key]] for key in ("mean", "std"))
        crop, method = float(given.get("crop_pct") or 0.875), given.get("interpolation", "bicubic")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(
            "config.json names an architecture of timm, but not how images are prepared",
            found=f"{type(error).__name__}: {error}",
            allowed="pretrained_cfg with input_size, mean, std; num_classes",
        ) from None
    channels = int(arguments.get("in_chans", channels))
    if not len(mean) == len(deviation) == channels:
        raise ModelError(
            "mean and standard deviation are not of every channel",
            found=f"{len(mean)} and {len(deviation)} for {channels} channels",
            next="name one a channel in pretrained_cfg of config.json",
        )
    if method not in _PIL or (width != height or given.get("crop_mode", "center") != "center"):
        raise ModelError(
            "config.json asks for a way to prepare images that is not known here",
            found=f"interpolation {method}, crop_mode {given.get('crop_mode')}, {height} x {width}",
            allowed=f"{', '.join(_PIL)}; center; squares",
        )
    numbered = names.items() if isinstance(names, Mapping) else enumerate(names)
    described = {
        "builder": BUILDER,
        "builder_kwargs": {"architecture": config["architecture"], "num_classes": classes, **arguments},
        "id2label": {str(number): str(name) for number, name in numbered},
    }
    preprocessing = {
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "rescale_factor": 1 / 255,
        "image_mean": mean,
        "image_std": deviation,
        "size": {"height": height, "width": width},
        "crop_pct": crop,
        "resample": _PIL[method],
    }
    return described, preprocessing
