"""What a classifier of images is asked before anything is done to it: see compress.tasks.reading."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from compress.config.data import Resize
from compress.data.pictures import preparation
from compress.tasks.image_classification.model import ImageClassifier
from compress.tasks.reading import Arrays

_ORIENTATION = 0x0112  # tag of EXIF
_ON_ITS_SIDE = 6


class ImageReading:
    """Pictures of odd shapes and modes, where the model's preprocessing resizes or crops; else of its size.

    None is grey of 16 bits: Pillow, and with it every stock library, clips those to white.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.model = ImageClassifier.open(checkpoint)
        self.prepare = preparation(checkpoint, Resize())

    def probes(self) -> dict[str, Any]:
        height, width, channels = self.model.shape
        random = np.random.default_rng(0)

        def picture(tall: int, wide: int, mode: str = "RGB") -> Image.Image:
            coarse = random.integers(0, 256, (max(2, tall // 4), max(2, wide // 4), 4)).astype(np.uint8)
            soft = Image.fromarray(coarse).resize((wide, tall), Image.Resampling.BICUBIC)
            return soft if mode == "RGBA" else soft.convert("RGB").convert(mode)

        own = "RGB" if channels == 3 else "L"
        pictures = {"of the model's size": _encoded(picture(height, width, own))}
        settings = self.model.preprocessing
        if settings.get("do_resize", True) or settings.get("do_center_crop"):
            sizes = {"wide": (32, 96), "tall": (70, 33), "large": (2 * height + 1, 2 * width + 3)}
            pictures |= {name: _encoded(picture(*size, own)) for name, size in sizes.items()}
        if channels == 3 and len(pictures) > 1:
            modes = {
                "grey": "L",
                "one bit": "1",
                "palette": "P",
                "transparent": "RGBA",
                "grey, transparent": "LA",
            }
            pictures |= {name: _encoded(picture(45, 61, mode)) for name, mode in modes.items()}
            pictures["of four inks"] = _encoded(picture(45, 61, "CMYK"), "JPEG")
            exif = Image.Exif()
            exif[_ORIENTATION] = _ON_ITS_SIDE
            pictures["on its side"] = _encoded(picture(45, 61), "JPEG", exif=exif)
        return {"pictures": pictures}

    def answers(self, probes: Mapping[str, Any]) -> Arrays:
        found: Arrays = {"classes/names": np.array(self.model.classes)}
        for name, data in probes["pictures"].items():
            with Image.open(io.BytesIO(base64.b64decode(data))) as image:
                inputs = self.model.inputs(self.prepare(image)[None])
            with torch.no_grad():
                logits = self.model.run(inputs)
            found[f"pixels/{name}"] = inputs["pixel_values"][0].numpy()
            found[f"outputs/{name}"] = logits[0].numpy()
        return found


def _encoded(image: Image.Image, kind: str = "PNG", **settings: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return base64.b64encode(buffer.getvalue()).decode()
