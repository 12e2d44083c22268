"""A picture to the pixels that a classifier reads, before they are rescaled and normalised.

What resizes and crops is the processor that the checkpoint was published for: of transformers where
preprocessor_config.json names one, timm's arithmetic where it has a share to crop, else plain.
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from compress.config.data import Interpolation, Resize

Pixels = NDArray[np.uint8]  # [height, width, channels]
Prepare = Callable[[Image.Image], Pixels]


def preparation(checkpoint: Path | None, resize: Resize) -> Prepare:
    """How a picture becomes pixels: by the user's `resize` where that has a size, else as the checkpoint's
    own processor does it; without a checkpoint it keeps its size, and grey stays grey."""
    settings: dict[str, Any] = {}
    if checkpoint is not None:
        settings = json.loads((checkpoint / "preprocessor_config.json").read_text("utf-8"))
    stock = "image_processor_type" in settings
    channels = len(settings["image_mean"]) if settings else None
    sized = partial(resized, resize=resize) if resize.size else _geometry(checkpoint, settings)

    def prepare(image: Image.Image) -> Pixels:
        if stock:  # transformers turns pictures upright when it opens them, timm and torchvision do not
            image = ImageOps.exif_transpose(image)
        pixels = np.asarray(sized(of_channels(eight_bits(image), channels)))
        return pixels.reshape(*pixels.shape[:2], -1)

    return prepare


def _geometry(checkpoint: Path | None, settings: Mapping[str, Any]) -> Callable[[Image.Image], Any]:
    """What resizes and crops as a checkpoint's preprocessor_config.json says."""
    crops = settings.get("do_center_crop", "crop_size" in settings)
    if checkpoint is None or not (settings.get("do_resize", True) or crops):
        return lambda image: image
    if "crop_pct" in settings and "image_processor_type" not in settings:
        method = Interpolation(Image.Resampling(settings["resample"]).name.lower())
        whole = Resize(size=settings["size"]["height"], crop=settings["crop_pct"], interpolation=method)
        return partial(resized, resize=whole)
    processor = open_processor(checkpoint, {**settings, "do_center_crop": crops})
    bare = {step: False for step in ("do_rescale", "do_normalize", "include_top") if hasattr(processor, step)}

    def geometry(image: Image.Image) -> Any:
        found = processor(images=image, return_tensors="np", **bare)["pixel_values"][0]
        pixels = found.astype(np.uint8)
        if not np.array_equal(pixels, found):
            raise ValueError(f"{type(processor).__name__} leaves no whole numbers from 0 to 255")
        return pixels.transpose(1, 2, 0)

    return geometry


def open_processor(folder: Path | None, settings: Mapping[str, Any]) -> Any:
    """transformers' processor of a folder: the one its preprocessor_config.json names, else the plain one,
    which resizes and crops by `settings`. Of those that need no torchvision."""
    import transformers

    if "image_processor_type" in settings:
        return transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True, backend="pil")
    return transformers.ViTImageProcessorPil(**settings)


def eight_bits(image: Image.Image) -> Image.Image:
    """Grey or RGB; raises ValueError for numbers that no file says the range of.

    Pillow clips grey pictures of 16 bits at 255; here they are scaled, as it scales coloured ones.
    """
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"mode {image.mode}, numbers of 32 bits, whose range is unknown")
    return image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")


def of_channels(image: Image.Image, channels: int | None) -> Image.Image:
    """For a model of so many channels; raises ValueError for a coloured picture where they are not three."""
    if channels == 3:
        return image.convert("RGB")
    if channels is None or image.mode == "L":
        return image
    pixels = np.asarray(image)
    if channels != 1 or (pixels != pixels[..., :1]).any():
        raise ValueError(f"a coloured picture, for a model of {channels} channels")
    return image.convert("L")


def resized(image: Image.Image, resize: Resize) -> Image.Image:
    """`image` as `resize` says; the arithmetic of rounding is torchvision's and timm's."""
    shorter, sides = int(resize.size / resize.crop), (image.width, image.height)
    width, height = (shorter * side // min(sides) for side in sides)
    method = Image.Resampling[resize.interpolation.name.upper()]
    left, top = (round((side - resize.size) / 2) for side in (width, height))
    return image.resize((width, height), method).crop((left, top, left + resize.size, top + resize.size))
