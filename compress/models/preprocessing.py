"""From images to what a classifier reads, as preprocessor_config.json says. Needs no torch."""

from collections.abc import Mapping
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.errors import ModelError
from compress.models.checkpoint import read_json


def read_preprocessing(folder: Path) -> dict[str, Any]:
    """preprocessor_config.json; raises ModelError where it does not say sizes, means and deviations."""
    path = folder / "preprocessor_config.json"
    settings: dict[str, Any] = read_json(path) if path.is_file() else {}
    size = settings.get("size")
    if isinstance(size, int):
        settings["size"] = {"height": size, "width": size}
    missing = [key for key in ("size", "image_mean", "image_std") if not settings.get(key)]
    if missing or not ({"height", "width"} <= set(settings["size"]) or "shortest_edge" in settings["size"]):
        raise ModelError(
            f"{path.name} does not say how images are prepared",
            found=f"without {', '.join(missing) or 'height and width'}",
            allowed="size {height, width} or {shortest_edge}, image_mean, image_std",
        )
    return settings


def check_side(own: int, batch: int, side: int) -> None:
    """Raise ModelError for a workload of images that are not `own` pixels high."""
    if side != own:
        raise ModelError(
            "a workload of another size than the model's images",
            found=f"{batch}x{side}",
            allowed=f"batch x {own} pixels",
            next=f"benchmark.workloads=[1x{own},32x{own}]",
        )


def shape_of(preprocessing: Mapping[str, Any]) -> tuple[int, int, int]:
    """Height, width, channels of what the model reads: what is left after cropping."""
    cropped = preprocessing.get("crop_size") if preprocessing.get("do_center_crop", True) else None
    size = cropped or preprocessing["size"]
    edge = size if isinstance(size, int) else size.get("shortest_edge")
    height, width = (edge or size["height"], edge or size["width"])
    return int(height), int(width), len(preprocessing["image_mean"])


def resize_words(preprocessing: Mapping[str, Any]) -> str:
    """The settings of data.resize that prepare images as the model's own preprocessing does."""
    side, whole = shape_of(preprocessing)[0], preprocessing["size"]
    share = side / (whole.get("shortest_edge") or whole["height"])
    crop = preprocessing.get("crop_pct") or floor(1e6 * share) / 1e6  # never one pixel less of the whole
    method = "bicubic" if preprocessing.get("resample") == 3 else "bilinear"
    return f"data.resize.size={side} data.resize.crop={crop:g} data.resize.interpolation={method}"


def pixel_values(images: NDArray[np.uint8], preprocessing: Mapping[str, Any]) -> NDArray[np.float32]:
    """uint8 [batch, height, width, channels] -> normalised float32 [batch, channels, height, width].

    Raises ModelError for images of another shape than the model's: they are not resized behind your back.
    """
    if images.shape[1:] != (wanted := shape_of(preprocessing)):
        resizable = images.shape[3:] == wanted[2:] and wanted[0] == wanted[1]
        raise ModelError(
            "the images have another shape than the model's",
            found=" x ".join(map(str, images.shape[1:])),
            allowed=" x ".join(map(str, wanted)),
            next=resize_words(preprocessing) if resizable else "choose the model made for such images",
        )
    mean, std = (np.float32(preprocessing[key]) for key in ("image_mean", "image_std"))
    pixels = (images.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
