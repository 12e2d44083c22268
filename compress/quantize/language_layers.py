"""The linear layers of a language model by name, and what goes along with its graph."""

import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from compress.errors import ConfigError
from compress.quantize.blocks import SIZES

HEAD = "lm_head"
EMBEDDING = "embed_tokens"
_COMPANION = "genai_config.json"  # onnxruntime-genai's, of the same inputs and outputs


def chosen_layers(model: Any, exclude: Sequence[str]) -> list[str]:
    """Names of the linear layers that no pattern matches; ConfigError for a pattern that matches none."""
    names = list(model.linears())
    for pattern in exclude:
        if not any(re.search(pattern, name) for name in names):
            raise ConfigError(
                "a pattern in quantize.exclude matches no layer",
                found=pattern,
                allowed=", ".join(names[:7]) + f", ..., {names[-1]}",
            )
    return [name for name in names if not any(re.search(pattern, name) for pattern in exclude)]


def check_block_size(model: Any, names: Iterable[str], size: int) -> None:
    linears = model.linears()
    for name in names:
        width = linears[name].in_features
        if width % size:
            fitting = ", ".join(str(each) for each in SIZES if width % each == 0)
            raise ConfigError(
                "quantize.block_size does not divide a layer's width",
                found=f"{size}, and {width} inputs of {name}",
                allowed=fitting or "none: leave the layer out with quantize.exclude",
            )


def weights_of(model: Any) -> dict[str, np.ndarray]:
    """Name -> weight (outputs, inputs), not copied."""
    return {name: linear.weight.detach().numpy() for name, linear in model.linears().items()}


def embedding_of(model: Any) -> nn.Parameter:
    """(tokens, width); the head's weight where they are tied."""
    found: nn.Parameter = model.module.get_input_embeddings().weight
    return found


def is_tied(model: Any) -> bool:
    return bool(model.config.tie_word_embeddings)


def keep_companions(graph: Path, out: Path) -> None:
    if (graph / _COMPANION).is_file():
        shutil.copy(graph / _COMPANION, out / _COMPANION)
