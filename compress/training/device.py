"""Where torch trains."""

from collections.abc import Mapping

import torch
from torch import Tensor

from compress.config.recover import Device
from compress.errors import ConfigError


def chosen(device: Device) -> torch.device:
    """`auto` is the first GPU that CUDA finds, else the CPU. Raises ConfigError for one that is not there."""
    found = torch.cuda.is_available()
    if device is Device.cuda and not found:
        raise ConfigError("torch finds no GPU", found="recover.device=cuda", allowed="auto, cpu")
    return torch.device("cuda" if found and device is not Device.cpu else "cpu")


def moved(inputs: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: each.to(device) for name, each in inputs.items()}
