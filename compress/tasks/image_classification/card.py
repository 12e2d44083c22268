"""What a model card says of a classifier of images."""

from collections.abc import Mapping, Sequence
from typing import Any

from compress.models.preprocessing import normalisation

_PREPARED = """\
# pictures of any size become pixels by the processor of this folder, from transformers:
# prepare = AutoImageProcessor.from_pretrained(".", backend="pil")
# pixels = prepare(images=pictures, return_tensors="np")["pixel_values"]
"""
_EXAMPLE = """
import numpy as np

classes = {classes}
mean, std = np.float32({mean}), np.float32({std})

{prepared}# put yours here
images = np.random.randint(0, 256, (4, {height}, {width}, {channels})).astype(np.float32)
pixels = ((images / 255 - mean) / std).transpose(0, 3, 1, 2)
logits = run({{"pixel_values": pixels}})["logits"]
print([classes[i] for i in logits.argmax(1)])
"""


def card_facts(
    shape: tuple[int, int, int], preprocessing: Mapping[str, Any], classes: Sequence[str]
) -> dict[str, Any]:
    """`shape`: height, width, channels."""
    height, width, channels = shape
    mean, std = ([float(f"{x:.7g}") for x in values] for values in normalisation(preprocessing))
    return {
        "pipeline_tag": "image-classification",
        "inputs": {"pixel_values": f"float32 (batch, {channels}, {height}, {width}), normalised"},
        "outputs": {"logits": f"float32 (batch, {len(classes)})"},
        "example_code": _EXAMPLE.format(
            classes=list(classes),
            prepared=_PREPARED if "image_processor_type" in preprocessing else "",
            mean=mean,
            std=std,
            height=height,
            width=width,
            channels=channels,
        ),
    }
