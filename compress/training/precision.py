"""Which numbers training multiplies."""

import torch
from torch import nn

from compress.config.recover import Precision

_CPU = torch.device("cpu")


def wants_bfloat16(precision: Precision, device: torch.device = _CPU) -> bool:
    """Whether to multiply in bfloat16: AMX or AVX512-BF16 make it 2 to 4 times as fast."""
    if precision is Precision.auto and device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if precision is Precision.auto:
        return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
    return precision is Precision.bfloat16


def cast_weights(module: nn.Module, dtype: torch.dtype) -> None:
    """In place, and not the buffers: SmolLM2's rotations would be off by 0.7 radians at 512 tokens."""
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)
