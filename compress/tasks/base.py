"""What a task gives to the stages. A task is what a model is for; its folder holds all that depends on it."""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from compress.errors import ConfigError
from compress.schema.workload import Workload

Feeds = dict[str, np.ndarray]  # name of a graph's input -> array, whose first axis is the batch


class Processor(Protocol):
    """Examples of a split to inputs of a graph; opens from a checkpoint, without its weights and torch.

    `examples` are those of a split: texts, or uint8 images [n, height, width, channels].
    """

    @property
    def input_names(self) -> tuple[str, ...]:
        """All that an exported graph may take."""

    def batches(self, examples: Any, size: int) -> Iterator[Feeds]:
        """Inputs of at most `size` examples each; their order may be another."""

    def check(self, workload: Workload) -> None:
        """Raise ConfigError, DataError or ModelError for a workload that this model cannot have."""

    def workload(self, examples: Any, workload: Workload) -> Feeds:
        """Inputs of exactly this batch and size, made of real examples; raises what `check` raises."""


def refuse_cache(workload: Workload) -> None:
    """Raise ConfigError for a workload with cached tokens, which this task has none of."""
    if workload.past:
        raise ConfigError(
            "only language models have cached tokens",
            found=f"the workload {workload}",
            allowed=f"{workload.batch}x{workload.size} for this model",
        )
