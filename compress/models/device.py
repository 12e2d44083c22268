"""Where torch computes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from compress.config.recover import Device
from compress.errors import ConfigError


def chosen(device: Device = Device.auto) -> torch.device:
    """`auto` is the first GPU that CUDA finds, else the CPU. Raises ConfigError for one that is not there."""
    found = torch.cuda.is_available()
    if device is Device.cuda and not found:
        raise ConfigError("torch finds no GPU", found="recover.device=cuda", allowed="auto, cpu")
    return torch.device("cuda" if found and device is not Device.cpu else "cpu")


def moved(inputs: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: each.to(device) for name, each in inputs.items()}


def everywhere(device: torch.device, nest: Any) -> Any:
    """The same nest of lists, tuples and dicts with its tensors on that device."""
    return tree_map_only(Tensor, lambda each: each.to(device), nest)


@contextmanager
def computing(module: nn.Module) -> Iterator[torch.device]:
    """Have the module, its gradients too, on the device that is `chosen`, which it gives; then where it was.

    What is found out there comes back to the CPU: only what computes much leaves it.
    """
    device, before = chosen(), next(module.parameters()).device
    module.to(device)
    try:
        yield device
    finally:
        module.to(before)
