"""The linear layers of a language model by name, and its embedding."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
from torch import Tensor, nn

from compress.errors import ConfigError
from compress.models.stored import in_float32
from compress.quantize.blocks import SIZES, Blocks
from compress.quantize.coverage import matching
from compress.tasks.language_modeling.model import CausalLM

HEAD = "lm_head"
EMBEDDING = "embed_tokens"


def chosen_layers(model: CausalLM, exclude: Sequence[str]) -> list[str]:
    """Names of the linear layers that no pattern matches; ConfigError for a pattern that matches none."""
    names = list(model.linears())
    left_out = matching(names, exclude, "layer")
    return [name for name in names if name not in left_out]


def check_block_size(model: CausalLM, names: Iterable[str], size: int) -> None:
    linears = model.linears()
    for name in names:
        width = linears[name].in_features
        if width % size:
            fitting = ", ".join(str(allowed) for allowed in SIZES if width % allowed == 0)
            raise ConfigError(
                "quantize.block_size does not divide a layer's width",
                found=f"{size}, and {width} inputs of {name}",
                allowed=fitting or "none: leave the layer out with quantize.exclude",
            )


class _Weights(Mapping[str, np.ndarray]):
    def __init__(self, linears: Mapping[str, nn.Linear]) -> None:
        self.linears = linears

    def __getitem__(self, name: str) -> np.ndarray:
        return in_float32(self.linears[name].weight).numpy()

    def __iter__(self) -> Iterator[str]:
        return iter(self.linears)

    def __len__(self) -> int:
        return len(self.linears)


def weights_of(model: CausalLM) -> Mapping[str, np.ndarray]:
    """Name -> weight (outputs, inputs) in float32: not copied, or, where it is stored narrower, made anew
    each time, so that one at a time is in memory."""
    return _Weights(model.linears())


def embedding_of(model: CausalLM) -> nn.Parameter:
    """(tokens, width); the head's weight where they are tied."""
    weight: nn.Parameter = cast(Any, model.module).get_input_embeddings().weight
    return weight


def is_tied(model: CausalLM) -> bool:
    return bool(model.config.tie_word_embeddings)


@contextmanager
def changed_weights(linears: Iterable[nn.Linear], change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """The layers with weights that `change` makes of their own, for as long as the context lasts."""
    before = [(linear, linear.weight.data) for linear in linears]
    for linear, weight in before:
        linear.weight.data = change(weight)
    try:
        yield
    finally:
        for linear, weight in before:
            linear.weight.data = weight


@contextmanager
def changed_embedding(model: CausalLM, blocks: Blocks | None) -> Iterator[None]:
    """The embedding, and the head of a tied model, with the weights of blocks, if there are any, for as long
    as the context lasts."""
    embedding = embedding_of(model)
    before = embedding.data
    if blocks is not None:
        embedding.data = blocks.weight()
    try:
        yield
    finally:
        embedding.data = before
