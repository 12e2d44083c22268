"""How onnxruntime's quantizers are called: with the 8-bit types that a CPU's kernels want, and silently."""

import io
import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass

from onnxruntime.quantization import QuantType
from onnxruntime.quantization.quant_utils import get_qmin_qmax_for_qType

from compress.config.quantize import WeightType

# Dot-product instructions that accumulate 8-bit products without saturating.
_EXACT_X86 = {"avx_vnni", "avx512_vnni", "avx512vnni", "amx_int8"}
_ARM = {"asimd", "asimddp", "i8mm"}


@dataclass(frozen=True)
class Kernel:
    weight_type: QuantType
    reduce_range: bool  # 7-bit weights
    symmetric_activations: bool


def kernel_for(flags: Collection[str]) -> Kernel:
    """The types for a CPU with these flags (names as in /proc/cpuinfo).

    Weights are signed everywhere: onnxruntime's AMX and VNNI kernels take unsigned activations with
    signed weights; unsigned weights ran 2 to 3.6 times slower. Without VNNI, AVX2's vpmaddubsw adds
    two products in 16 bits and saturates, so the weights give up a bit.
    """
    present = set(flags)
    if present & _ARM:
        return Kernel(QuantType.QInt8, reduce_range=False, symmetric_activations=True)
    exact = bool(present & _EXACT_X86)
    return Kernel(QuantType.QInt8, reduce_range=not exact, symmetric_activations=False)


def resolve(
    flags: Collection[str],
    weight_type: WeightType,
    reduce_range: bool | None,
    symmetric: bool | None = None,
) -> Kernel:
    """What the config says, and the CPU's choice wherever it says auto or null."""
    auto = kernel_for(flags)
    types = {
        WeightType.auto: auto.weight_type,
        WeightType.int8: QuantType.QInt8,
        WeightType.uint8: QuantType.QUInt8,
    }
    return Kernel(
        types[weight_type],
        auto.reduce_range if reduce_range is None else reduce_range,
        auto.symmetric_activations if symmetric is None else symmetric,
    )


def weight_limits(kernel: Kernel) -> tuple[int, int]:
    """Smallest and largest integer that onnxruntime gives to a weight."""
    low, high = get_qmin_qmax_for_qType(kernel.weight_type.tensor_type, kernel.reduce_range, symmetric=True)
    return int(low), int(high)


@contextmanager
def quiet() -> Iterator[None]:
    """onnxruntime's quantizers print, and log on the root logger: keep that from the screen."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(level)
