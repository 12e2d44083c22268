"""sentence-transformers' module Dense: a layer behind the pooling, as LaBSE and EmbeddingGemma have it."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from compress.errors import ModelError

_WEIGHTS = "model.safetensors"


def open_dense(folder: Path, activation: str, inputs: int) -> nn.Sequential:
    """The layer in `folder`, which reads `inputs` numbers, and what follows it: a class of torch.

    Raises ModelError for weights that are not there, damaged, not finite or of another size.
    """
    try:
        weights = load_file(folder / _WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise _refusal(folder, str(error), f"{_WEIGHTS}; pickled weights are never loaded") from None
    weight, bias = weights.get("linear.weight"), weights.get("linear.bias")
    if weight is None or weight.ndim != 2 or weight.shape[1] != inputs:
        found = f"linear.weight {list(weight.shape)}" if weight is not None else ", ".join(weights)
        raise _refusal(folder, found, f"linear.weight (any number, {inputs})")
    if unknown := sorted(weights.keys() - {"linear.weight", "linear.bias"}):
        raise _refusal(folder, unknown[0], "linear.weight, linear.bias")
    if not all(torch.isfinite(each).all() for each in weights.values()):
        raise _refusal(folder, "NaN or infinity", "finite weights")
    linear = nn.Linear(inputs, len(weight), bias=bias is not None)
    linear.load_state_dict({name.removeprefix("linear."): each.float() for name, each in weights.items()})
    kind: type[nn.Module] = getattr(nn, activation)
    return nn.Sequential(linear.requires_grad_(False), kind())


def _refusal(folder: Path, found: str, allowed: str) -> ModelError:
    return ModelError(
        f"the module Dense in {folder} cannot be opened", found=found, allowed=allowed, next="fetch it again"
    )
