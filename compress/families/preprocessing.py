"""From images to what a classifier reads, as preprocessor_config.json says. Needs no torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from compress.errors import ModelError
from compress.families.checkpoint import read_json


def read_preprocessing(folder: Path) -> dict[str, Any]:
    """preprocessor_config.json; raises ModelError where it does not say sizes, means and deviations."""
    path = folder / "preprocessor_config.json"
    found = read_json(path) if path.is_file() else {}
    size = found.get("size")
    if isinstance(size, int):
        found["size"] = {"height": size, "width": size}
    missing = [key for key in ("size", "image_mean", "image_std") if not found.get(key)]
    if missing or not {"height", "width"} <= set(found["size"]):
        raise ModelError(
            f"{path.name} does not say how images are prepared",
            found=f"without {', '.join(missing) or 'height and width'}",
            allowed="size {height, width}, image_mean, image_std",
        )
    return cast(dict[str, Any], found)


def shape_of(preprocessing: Mapping[str, Any]) -> tuple[int, int, int]:
    """Height, width, channels."""
    size = preprocessing["size"]
    return int(size["height"]), int(size["width"]), len(preprocessing["image_mean"])


def pixel_values(images: NDArray[np.uint8], preprocessing: Mapping[str, Any]) -> NDArray[np.float32]:
    """uint8 [batch, height, width, channels] -> normalised float32 [batch, channels, height, width].

    Raises ModelError for images of another shape than the model's: they are not resized behind your back.
    """
    if images.shape[1:] != (wanted := shape_of(preprocessing)):
        raise ModelError(
            "the images have another shape than the model's",
            found=" x ".join(map(str, images.shape[1:])),
            allowed=" x ".join(map(str, wanted)),
            next="bring them to one size first, or choose the model made for them",
        )
    mean, std = (np.float32(preprocessing[key]) for key in ("image_mean", "image_std"))
    pixels = (images.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
