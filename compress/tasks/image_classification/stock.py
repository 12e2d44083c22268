"""What transformers, or timm, makes of a published classifier of images: a script of compress.tasks.reading,
which needs no other file of this package.
"""

import base64
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Pixels = Callable[[Any], Any]  # a picture -> (1, channels, height, width)


def read(published: str, probes: dict[str, Any]) -> dict[str, np.ndarray]:
    """classes/names: of the outputs, in their order; pixels/NAME: (channels, height, width) and outputs/NAME:
    logits (classes), of each picture."""
    import torch

    config = json.loads((Path(published) / "config.json").read_text("utf-8"))
    timm = "architecture" in config and "model_type" not in config
    library, classes, pixels, model = (_timm if timm else _transformers)(published, config)
    found = {"library": np.array(library)}
    for name, data in probes["pictures"].items():
        values = pixels(base64.b64decode(data))
        with torch.no_grad():
            logits = model.eval()(values) if timm else model.eval()(values, return_dict=True).logits
        found[f"pixels/{name}"], found[f"outputs/{name}"] = values[0].numpy(), logits[0].numpy()
    found["classes/names"] = np.array(classes or [str(number) for number in range(logits.shape[1])])
    return found


def _transformers(published: str, config: dict[str, Any]) -> tuple[str, list[str], Pixels, Any]:
    import torch
    import transformers
    from PIL import Image
    from transformers.image_utils import load_image

    where: dict[str, Any] = {"local_files_only": True}
    processor = transformers.AutoImageProcessor.from_pretrained(published, backend="pil", **where)
    model = transformers.AutoModelForImageClassification.from_pretrained(
        published, dtype=torch.float32, attn_implementation="eager", **where
    )
    grey = getattr(model.config, "num_channels", 3) == 1

    def pixels(data: bytes) -> Any:
        image = load_image(Image.open(io.BytesIO(data)))  # as the pipeline does: upright, RGB
        return processor(images=image.convert("L") if grey else image, return_tensors="pt").pixel_values

    names = model.config.id2label
    return f"transformers {transformers.__version__}", [str(names[n]) for n in sorted(names)], pixels, model


def _timm(published: str, config: dict[str, Any]) -> tuple[str, list[str], Pixels, Any]:
    import timm
    from PIL import Image

    model = timm.create_model(f"local-dir:{published}", pretrained=True)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    mode = "L" if model.pretrained_cfg["input_size"][0] == 1 else "RGB"
    names = config.get("label_names") or model.pretrained_cfg.get("label_names")

    def pixels(data: bytes) -> Any:
        return transform(Image.open(io.BytesIO(data)).convert(mode))[None]

    return f"timm {timm.__version__}", list(names or []), pixels, model


if __name__ == "__main__":
    answers = read(sys.argv[1], json.loads(Path(sys.argv[2]).read_text()))
    np.savez(sys.argv[3], **answers)  # type: ignore[arg-type]
