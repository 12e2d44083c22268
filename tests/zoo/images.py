"""Tiny published classifiers of images, made by code: one feature each."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.25]
NORMED = {"image_mean": MEAN, "image_std": STD}
SQUARE = {"height": 32, "width": 32}
VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 32,
    "patch_size": 16,
}
CONV = {"hidden_sizes": [4, 8], "depths": [1, 1]}


def vit(**settings: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
    return "vit", VIT, {"image_processor_type": "ViTImageProcessor", "size": SQUARE, **settings}


# Feature -> model type, config, preprocessor_config.json.
PUBLISHED: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "squashed": vit(**NORMED),
    "without normalisation": vit(do_normalize=False, **NORMED),
    "rescaled to 2": vit(rescale_factor=1 / 127.5, **NORMED),
    "not rescaled": vit(do_rescale=False, image_mean=[100, 90, 80], image_std=[50, 60, 70]),
    "one mean for all channels": vit(image_mean=0.5, image_std=0.25),
    "not resized": vit(do_resize=False, **NORMED),
    "nearest": vit(resample=0, **NORMED),
    "lanczos": vit(resample=1, **NORMED),
    "cropped": vit(size={"height": 40, "width": 36}, do_center_crop=True, crop_size=SQUARE, **NORMED),
    "settings of EfficientNet's alone": vit(rescale_offset=True, include_top=True, **NORMED),
    "grey": ("vit", {**VIT, "num_channels": 1}, vit(image_mean=[0.5], image_std=[0.2])[2]),
    "of an older transformers": (
        "vit",
        VIT,
        {"feature_extractor_type": "ViTFeatureExtractor", "size": 32, "do_resize": True, **NORMED},
    ),
    "without a type": ("vit", VIT, {"size": SQUARE, **NORMED}),
    "deit": (
        "deit",
        VIT,
        {
            "feature_extractor_type": "DeiTFeatureExtractor",
            "size": 40,
            "crop_size": 32,
            "resample": 3,
            **NORMED,
        },
    ),
    "beit": ("beit", VIT, {"image_processor_type": "BeitImageProcessor", "size": SQUARE, **NORMED}),
    "shorter side, cropped": (
        "dinov2",
        {**VIT, "image_size": 28, "patch_size": 14},
        {
            "image_processor_type": "BitImageProcessor",
            "size": {"shortest_edge": 36},
            "crop_size": {"height": 28, "width": 28},
            "do_convert_rgb": True,
            **NORMED,
        },
    ),
    "share of the crop": (
        "convnext",
        {**CONV, "num_stages": 2},
        {
            "image_processor_type": "ConvNextImageProcessor",
            "size": {"shortest_edge": 32},
            "crop_pct": 0.8,
            **NORMED,
        },
    ),
    "share of the crop, by default": (
        "resnet",
        {**CONV, "embedding_size": 4, "layer_type": "basic"},
        {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 32, **NORMED},
    ),
    "poolformer": (
        "poolformer",
        {"hidden_sizes": [8] * 4, "depths": [1] * 4},
        {"image_processor_type": "PoolFormerImageProcessor", "size": SQUARE, "crop_size": SQUARE, **NORMED},
    ),
    "siglip": (
        "siglip",
        {
            "vision_config": VIT,
            "text_config": {"hidden_size": 16, "num_attention_heads": 2, "vocab_size": 50000},
        },
        {"image_processor_type": "SiglipImageProcessor", "size": SQUARE, **NORMED},
    ),
    "levit": (
        "levit",
        {
            "image_size": 64,
            "hidden_sizes": [16] * 3,
            "num_attention_heads": [1] * 3,
            "depths": [1] * 3,
            "key_dim": [4] * 3,
        },
        {
            "image_processor_type": "LevitImageProcessor",
            "size": {"shortest_edge": 64},
            "crop_size": 64,
            **NORMED,
        },
    ),
    "channels turned": (
        "mobilevit",
        {
            "image_size": 64,
            "hidden_sizes": [8] * 3,
            "neck_hidden_sizes": [8] * 7,
            "num_attention_heads": 2,
        },
        {
            "image_processor_type": "MobileViTImageProcessor",
            "size": {"shortest_edge": 72},
            "crop_size": {"height": 64, "width": 64},
            "do_flip_channel_order": True,
        },
    ),
    "offset": (
        "vit",
        VIT,
        {
            "image_processor_type": "EfficientNetImageProcessor",
            "size": SQUARE,
            "rescale_offset": True,
            "rescale_factor": 1 / 127.5,
            "include_top": True,
            **NORMED,
        },
    ),
}
SLOW = ("levit", "channels turned", "poolformer")


def publish(name: str, folder: Path, **changes: Any) -> Path:
    """The folder as it would lie on the hub; `changes`: of its preprocessor_config.json."""
    kind, sizes, prepared = PUBLISHED[name]
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, num_labels=3, **sizes)
    nets = transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING[type(config)]
    net = nets[0] if isinstance(nets, tuple) else nets
    net(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({**prepared, **changes}))
    return folder
