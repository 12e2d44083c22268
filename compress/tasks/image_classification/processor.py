"""Images to the input of a classifier."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.models.preprocessing import check_side, pixel_values, read_preprocessing, shape_of
from compress.schema.workload import Workload
from compress.tasks.base import Feeds, refuse_cache

Images = NDArray[np.uint8]  # [images, height, width, channels]


class ImageProcessor:
    """Normalises as preprocessor_config.json says; resizes nothing."""

    input_names = ("pixel_values",)

    def __init__(self, preprocessing: Mapping[str, Any]) -> None:
        self.preprocessing = dict(preprocessing)
        self.shape = shape_of(preprocessing)  # height, width, channels

    def inputs(self, images: Images) -> Feeds:
        """uint8 [batch, height, width, channels] -> normalised float32 [batch, channels, height, width]."""
        return {"pixel_values": pixel_values(images, self.preprocessing)}

    def batches(self, examples: Images, size: int) -> Iterator[Feeds]:
        for start in range(0, len(examples), size):
            yield self.inputs(examples[start : start + size])

    def check(self, workload: Workload) -> None:
        """Raise ModelError where the side is not the model's."""
        refuse_cache(workload)
        check_side(self.shape[0], workload.batch, workload.size)

    def workload(self, examples: Images, workload: Workload) -> Feeds:
        self.check(workload)
        return self.inputs(examples[np.arange(workload.batch) % len(examples)])


def open_processor(checkpoint: Path) -> ImageProcessor:
    """Raises ModelError where preprocessor_config.json cannot be read."""
    return ImageProcessor(read_preprocessing(checkpoint))
