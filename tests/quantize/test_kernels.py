"""8-bit types by CPU: the flags are those of real machines."""

import pytest
from onnxruntime.quantization import QuantType

from compress.config.quantize import WeightType
from compress.quantize.kernels import Kernel, kernel_for, resolve, weight_limits

AVX2 = {"sse4_2", "avx", "avx2", "fma"}
SKYLAKE = AVX2 | {"avx512f", "avx512bw"}
EXACT = Kernel(QuantType.QInt8, reduce_range=False, symmetric_activations=False)
SATURATING = Kernel(QuantType.QInt8, reduce_range=True, symmetric_activations=False)
ARM = Kernel(QuantType.QInt8, reduce_range=False, symmetric_activations=True)


@pytest.mark.parametrize(
    ("flags", "kernel"),
    [
        (AVX2, SATURATING),
        (SKYLAKE, SATURATING),
        (SKYLAKE | {"avx512_vnni"}, EXACT),
        (SKYLAKE | {"avx512vnni"}, EXACT),  # how py-cpuinfo spells it on some systems
        (AVX2 | {"avx_vnni"}, EXACT),
        (SKYLAKE | {"amx_tile", "amx_int8"}, EXACT),
        ({"fp", "asimd", "asimddp", "i8mm"}, ARM),
        ({"fp", "asimd"}, ARM),
        (set(), SATURATING),  # nothing known: the safe choice
    ],
)
def test_choice(flags, kernel):
    assert kernel_for(flags) == kernel
    assert kernel_for(sorted(flags)) == kernel
    assert resolve(sorted(flags), WeightType.auto, None) == kernel


@pytest.mark.parametrize("flags", [AVX2, AVX2 | {"avx_vnni"}, {"asimd"}])
def test_what_the_config_says_wins(flags):
    assert resolve(flags, WeightType.uint8, None).weight_type is QuantType.QUInt8
    assert resolve(flags, WeightType.int8, None).weight_type is QuantType.QInt8
    for value in (True, False):
        assert resolve(flags, WeightType.auto, value).reduce_range is value
        assert resolve(flags, WeightType.auto, None, value).symmetric_activations is value


@pytest.mark.parametrize(
    ("kind", "reduced", "limits"),
    [
        (QuantType.QInt8, False, (-127, 127)),
        (QuantType.QInt8, True, (-64, 64)),
        (QuantType.QUInt8, False, (0, 255)),
        (QuantType.QUInt8, True, (0, 127)),
    ],
)
def test_integers_of_weights(kind, reduced, limits):
    assert weight_limits(Kernel(kind, reduce_range=reduced, symmetric_activations=False)) == limits
