"""Weights in the precision of their checkpoint, mapped from its files; all that is computed is float32.

A model of 7B parameters takes 15 GB in its files and 30 GB in float32. Each part's weights are widened when
it runs and dropped behind it, so that one part at a time is in memory; the numbers are those of a model that
was widened whole, to the bit.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.models.checkpoint import header, weight_files
from compress.system.disk import link_or_copy
from compress.system.memory import forget_mapped

NARROW = (torch.bfloat16, torch.float16)
TYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def stored_type(folder: Path) -> torch.dtype:
    """That of all weights in the files of a checkpoint, where it is half as wide as float32; else float32."""
    kinds = {TYPES.get(t["dtype"]) for path in weight_files(folder) for t in header(path).values()}
    half = kinds.pop() if len(kinds) == 1 else None
    return half or torch.float32


def compute_in_float32(module: nn.Module) -> nn.Module:
    """Have `module`, whose weights are float16 or bfloat16, compute as if they were float32; vectors, which
    are small, become so."""
    for part in module.modules():
        own = list(part.parameters(recurse=False))
        for parameter in own:
            if parameter.dim() < 2:
                parameter.data = parameter.data.float()
        if any(parameter.dtype != torch.float32 for parameter in own):
            part.register_forward_pre_hook(_widen)
            part.register_forward_hook(_narrow, always_call=True)
    return module


def save_as_stored(module: Any, source: Path, folder: Path) -> None:
    """Write `module`, of transformers, whose weights are those of the folder `source`, by another name for
    their files."""
    module.config.save_pretrained(folder)
    if module.can_generate():
        module.generation_config.save_pretrained(folder)
    for path in (*weight_files(source), *source.glob("model.safetensors.index.json")):
        link_or_copy(path, folder / path.name)


def in_float32(stored: Tensor) -> Tensor:
    """The same where it is float32, else a copy; what was read of a mapped file is let go."""
    wide = stored.detach().float()
    if stored.dtype != torch.float32:
        forget_mapped(stored.data_ptr(), stored.nbytes)
    return wide


def _widen(part: Any, _: Any) -> None:
    part.stored = {name: each.data for name, each in part.named_parameters(recurse=False)}
    for parameter in part.parameters(recurse=False):
        parameter.data = parameter.data.float()


def _narrow(part: Any, *_: Any) -> None:
    for name, parameter in part.named_parameters(recurse=False):
        narrow: Tensor = part.stored[name]
        if narrow.dtype != torch.float32:
            parameter.data = narrow
            forget_mapped(narrow.data_ptr(), narrow.nbytes)
    part.stored = {}
