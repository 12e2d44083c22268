"""What a task gives to the stages. A task is what a model is for; its folder holds all that depends on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, cast

import numpy as np

from compress.errors import ConfigError
from compress.models.checkpoint import Facts, read_facts_of
from compress.schema.workload import Workload

if TYPE_CHECKING:  # torch takes seconds: not before a model has to be opened
    from torch import Tensor, nn

    from compress.models.layers import Stack

Feeds = dict[str, np.ndarray]  # name of a graph's input -> array, whose first axis is the batch
# batches of inputs, and limit (tokens) -> whether they reach it
AtLimits = tuple[list[dict[str, "Tensor"]], dict[int, bool]]


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


def tensors(feeds: Feeds) -> dict[str, Tensor]:
    """The same numbers for torch."""
    import torch

    return {name: torch.from_numpy(array) for name, array in feeds.items()}


@dataclass(frozen=True, kw_only=True)
class Traced:
    """What an exporter is given of a model."""

    module: nn.Module
    inputs: dict[str, Any]  # keyword -> tensor, or a nest of them
    axes: dict[str, Any]  # of the same nest: axis -> its name, where its size stays open
    input_names: tuple[str, ...]  # of the graph, as many as there are tensors in `inputs`
    output_names: tuple[str, ...]
    cached: bool = False  # keys and values go in and come out


class Model(Protocol):
    """A checkpoint's module with its weights. It reads what its task's processor gives, as tensors."""

    @property
    def module(self) -> nn.Module: ...

    @property
    def facts(self) -> Facts: ...

    @property
    def input_names(self) -> tuple[str, ...]: ...

    @property
    def output_names(self) -> tuple[str, ...]:
        """All that an exported graph gives."""

    def batches(self, examples: Any, size: int) -> Iterator[dict[str, Tensor]]:
        """Inputs of at most `size` examples each; their order may be another."""

    def at_limits(self, examples: Any) -> AtLimits:
        """Inputs made of the examples on both sides of limits that the model has, and which these are."""

    def run(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """What the module gives first for these inputs: (batch, ...)."""

    def outputs(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All that it gives, by name."""

    def stock_view(self, inputs: Mapping[str, Tensor]) -> tuple[str, str, Tensor]:
        """The class of transformers that opens a saved checkpoint, the name of its output that a reload is
        compared by, and this model's value of it."""

    def traced(self, examples: Any) -> Traced:
        """For an exporter, with inputs that it may run the module on."""

    def example(self) -> Any:
        """A small input for tracing the module."""

    def widths(self) -> dict[str, tuple[int, ...]]:
        """Kind -> width of each layer."""

    @property
    def stack(self) -> Stack:
        """The module's transformer layers; raises ModelError where it has none."""

    def save(self, folder: Path, facts: Facts) -> None:
        """Write a checkpoint that `load` opens."""


class Opened(ABC):
    """What models share that are opened from a checkpoint."""

    task: ClassVar[str]
    output_names: tuple[str, ...]
    open_axes: tuple[str, ...] = ("batch_size",)  # the first axes of every input

    @classmethod
    def open(cls, checkpoint: Path, attention: str = "sdpa") -> Self:
        """Open a checkpoint of ours; raises ModelError where it is none, or of another task."""
        return cls.load(checkpoint, read_facts_of(cls.task, checkpoint), attention)

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, facts: Facts, attention: str = "sdpa") -> Self:
        """Open a folder; raises ModelError for an unknown architecture or damaged weights.

        `attention` is transformers' attn_implementation: sdpa, or eager for plain products.
        """

    @property
    @abstractmethod
    def processor(self) -> Processor: ...

    @property
    def input_names(self) -> tuple[str, ...]:
        return self.processor.input_names

    def batches(self, examples: Any, size: int) -> Iterator[dict[str, Tensor]]:
        """Inputs of at most `size` examples each; their order may be another."""
        return map(tensors, self.processor.batches(examples, size))

    def at_limits(self, examples: Any) -> AtLimits:
        """Inputs made of the examples on both sides of limits that the model has, and which these are: of one
        whose examples are all of one size, none."""
        return [], {}

    @abstractmethod
    def run(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """What the module gives first for these inputs: (batch, ...)."""

    def outputs(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All that it gives, by name; of a model with one output what `run` gives."""
        [name] = self.output_names
        return {name: self.run(inputs)}

    def traced(self, examples: Any) -> Traced:
        """The module as it is, with `open_axes` of every input."""
        import torch

        plain = torch.contiguous_format  # strides of images with channels last would go into the graph
        given = next(self.batches(examples[:2], 2))
        inputs = {name: each.clone(memory_format=plain) for name, each in given.items()}
        return Traced(
            module=cast(Any, self).module,
            inputs=inputs,
            axes={name: dict(enumerate(self.open_axes)) for name in inputs},
            input_names=tuple(inputs),
            output_names=self.output_names,
        )


def refuse_cache(workload: Workload) -> None:
    """Raise ConfigError for a workload with cached tokens, which this task has none of."""
    if workload.past:
        raise ConfigError(
            "only language models have cached tokens",
            found=f"the workload {workload}",
            allowed=f"{workload.batch}x{workload.size} for this model",
        )
