"""From images to what a classifier reads, as preprocessor_config.json says. Needs no torch.

What resizes and crops is in `compress.data.pictures`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.errors import ModelError
from compress.models.checkpoint import read_config, read_json

FILE = "preprocessor_config.json"


def published_preprocessing(folder: Path) -> dict[str, Any]:
    """What transformers' own processor of a published folder does, defaults of its class included.

    Raises ModelError where it does not open, or is none that works without torchvision.
    """
    import transformers

    try:
        processor = transformers.AutoImageProcessor.from_pretrained(
            str(folder), local_files_only=True, backend="pil"
        )
        settings: dict[str, Any] = processor.to_dict()
        for step in {"rescale_offset", "include_top"} - processor.valid_kwargs.__annotations__.keys():
            settings.pop(step, None)  # kept of any file, and done by EfficientNet's alone
        for step in ("do_resize", "do_center_crop", "do_rescale", "do_normalize"):
            settings.setdefault(step, False)  # a class that leaves it open does not do it
        channels = int(read_config(folder).get("num_channels", 3))
        for key, unused in (("image_mean", 0.0), ("image_std", 1.0)):
            values = settings.get(key, unused)
            settings[key] = np.broadcast_to(values, len(values) if np.ndim(values) else channels).tolist()
        _check_sizes(processor, _checked(settings))
    except ModelError:
        raise
    except Exception as error:  # transformers checks little of what the file says, and raises all there is
        raise ModelError(
            f"the image processor of {folder} does not work in transformers",
            found=" ".join(f"{type(error).__name__}: {error}".split())[:300],
            allowed=f"{FILE} of a processor that needs no torchvision",
            next="fetch the model again, config.json and preprocessor_config.json of one revision",
        ) from None
    return settings


def _check_sizes(processor: Any, settings: Mapping[str, Any]) -> None:
    """Raise ModelError unless what the processor makes of any picture has the size that its settings say."""
    if not settings["do_resize"] and not settings["do_center_crop"]:
        return
    *sides, channels = shape_of(settings)
    for height, width in ((48, 96), (96, 48)):
        picture = np.zeros((height, width, channels), np.uint8)
        made = processor(images=picture, input_data_format="channels_last", return_tensors="np")
        if list(made["pixel_values"].shape[2:]) != sides:
            raise ModelError(
                f"{type(processor).__name__} makes pictures of a size that its settings do not name",
                found=f"{' x '.join(map(str, made['pixel_values'].shape[2:]))} of one of {height} x {width}",
                allowed=f"{sides[0]} x {sides[1]} of every picture: all are computed in one batch",
                next="name one size in preprocessor_config.json: crop_size {height, width}, or size",
            )


def read_preprocessing(folder: Path) -> dict[str, Any]:
    """preprocessor_config.json; raises ModelError where it does not say sizes, means and deviations."""
    path = folder / FILE
    settings: dict[str, Any] = read_json(path) if path.is_file() else {}
    if isinstance(size := settings.get("size"), int):
        settings["size"] = {"height": size, "width": size}
    return _checked(settings)


def _checked(settings: dict[str, Any]) -> dict[str, Any]:
    missing = [key for key in ("size", "image_mean", "image_std") if not settings.get(key)]
    if missing or not ({"height", "width"} <= set(settings["size"]) or "shortest_edge" in settings["size"]):
        raise ModelError(
            f"{FILE} does not say how images are prepared",
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


def normalisation(preprocessing: Mapping[str, Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and deviation [channels] of bytes divided by 255, whatever they are rescaled by, or not.

    A pixel x becomes (f x - o - m) / s: f `rescale_factor`, o 1 where `rescale_offset`, of EfficientNet,
    which may divide by s once more (`include_top`).
    """
    mean, deviation = (np.array(preprocessing[key], np.float64) for key in ("image_mean", "image_std"))
    if not preprocessing.get("do_normalize", True):
        mean, deviation = np.zeros_like(mean), np.ones_like(deviation)
    if preprocessing.get("include_top"):
        deviation = deviation * np.array(preprocessing["image_std"])
    rescales = preprocessing.get("do_rescale", True)
    factor = 255 * float(preprocessing.get("rescale_factor", 1 / 255)) if rescales else 255.0
    if rescales and preprocessing.get("rescale_offset"):
        mean = mean + 1
    return (mean / factor).astype(np.float32), (deviation / factor).astype(np.float32)


def pixel_values(images: NDArray[np.uint8], preprocessing: Mapping[str, Any]) -> NDArray[np.float32]:
    """uint8 [batch, height, width, channels] -> normalised float32 [batch, channels, height, width].

    Raises ModelError for images of another shape than the model's: they are not resized behind your back.
    """
    if images.shape[1:] != (wanted := shape_of(preprocessing)):
        resizes = preprocessing.get("do_resize", True) and images.shape[3:] == wanted[2:]
        raise ModelError(
            "the images have another shape than the model's",
            found=" x ".join(map(str, images.shape[1:])),
            allowed=" x ".join(map(str, wanted)),
            next="leave data.resize.size at 0: the model's own preprocessing resizes them"
            if resizes
            else "choose the model made for such images",
        )
    mean, std = normalisation(preprocessing)
    pixels = (images.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
