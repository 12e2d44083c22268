"""One hand-made case for each cause; two that onnxruntime shows are in benchmark/test_profile.py."""

import pytest

from compress.judge.explain import explain
from compress.schema.estimates import Estimate, Latency
from compress.schema.quantization import Coverage
from compress.schema.report import Variant
from compress.schema.speed import (
    ATTENTION,
    FLOAT,
    INTEGER,
    MOVES,
    ROUNDING,
    SUMS,
    Floor,
    Limits,
    Operator,
    Profile,
)

# 100 GFLOP/s in float: 1e9 multiply-accumulates take 20 ms; 400 in int8: 5 ms
LIMITS = Limits(
    threads=1,
    bandwidth_gb_per_s=10.0,
    float32_gflops=100.0,
    integer_gops={"int8": 400.0, "uint8": 100.0},
    cache_bytes=2**20,
)
VNNI = ("avx2", "avx512_vnni")
G = 10**9


def operator(op_type, kind, ms, nodes=6, macs=0):
    return Operator(op_type=op_type, kind=kind, ms=ms, nodes=nodes, macs=macs)


def variant(*operators, speedup=(0.8, 0.78, 0.82), p50=None, types=(), quantized=True, **facts):
    p50 = p50 or sum(each.ms for each in operators)
    return Variant(
        **{"name": "int8", "stage": "quantize", "path": "p", "sha256": "0", "size_bytes": 1, "parameters": 1},
        macs=G,
        profile={"w": Profile(operators=operators, weight_types=types)},
        latency_ms={"w": Latency(p50=p50, p90=p50, p99=p50, ci95=(p50, p50), samples=9)},
        speedup={"w": Estimate(value=speedup[0], ci95=speedup[1:])},
        quantization=Coverage(coverage_macs=1.0, coverage_bytes=1.0) if quantized else None,
        **facts,
    )


DENSE = variant(operator("MatMul", FLOAT, 20.0, macs=G), operator("Add", SUMS, 2.0))
GOOD = operator("DynamicQuantizeMatMul", INTEGER, 5.5, macs=G)
SUM = operator("Add", SUMS, 2.0)


def reasons(*operators, dense=DENSE, limits=LIMITS, flags=VNNI, **facts):
    return explain(dense, variant(*operators, **facts), "w", limits, flags)[1:]


def test_what_is_faster_or_was_not_timed_needs_no_explanation():
    assert explain(DENSE, variant(GOOD, speedup=(1.1, 1.01, 1.2)), "w", LIMITS, VNNI) == ()
    assert explain(DENSE, variant(GOOD), "another", LIMITS, VNNI) == ()


def test_how_it_stands_comes_first():
    assert explain(DENSE, variant(GOOD), "w")[0] == "slower than dense: 0.80x [0.78, 0.82]"
    unclear = variant(GOOD, speedup=(1.0, 0.9, 1.1))
    quiet, noisy = (explain(DENSE, unclear, "w", noise=noise)[0] for noise in ((), ("drift", "steal")))
    assert (
        quiet == "cannot be distinguished from dense: the interval of the speed-up is [0.90, 1.10], 20% wide"
    )
    assert noisy == f"{quiet}; the timing was noisy (drift; steal)"
    assert explain(variant(SUM), unclear, "w", noise=("x",))[0].endswith("(x)")


def test_weights_that_come_from_memory():
    """200 MB at 10 GB/s are 20 ms of 25; the products' rate is no cause then."""
    product = Operator(
        op_type="MatMulNBits", kind=INTEGER, ms=24.0, nodes=6, macs=G // 100, weight_bytes=200 * 10**6
    )
    floor = {"w": Floor(memory_ms=20.0, integer_ms=0.1, float_ms=0.0)}
    [said] = [line for line in reasons(product, p50=25.0, floor=floor) if "weights are read" in line]
    assert "200 MB of weights are read at every call, which takes 20.00 of 25.00 ms at the 10.0 GB/s" in said
    assert not any("GOP/s" in line for line in reasons(product, p50=25.0, floor=floor))
    assert any("GOP/s" in line for line in reasons(product, p50=25.0))  # they stay in the cache


def test_nothing_is_made_up():
    assert reasons(GOOD, SUM) == (
        "no class of operators takes longer than in dense, and nothing else stands out",
    )
    unprofiled = Variant(**{**vars(variant(GOOD)), "profile": {}})
    assert len(explain(DENSE, unprofiled, "w", LIMITS, VNNI)) == 1


def test_rounding_to_integers_and_back():
    (why, *_) = reasons(
        GOOD, SUM, operator("QuantizeLinear", ROUNDING, 2.5), operator("DequantizeLinear", ROUNDING, 5.0)
    )
    assert why == (
        "rounding to integers and back takes 50% of the operators' time, 7.50 ms a call "
        "(6 QuantizeLinear, 6 DequantizeLinear)"
    )


def test_a_class_that_got_slower():
    assert reasons(GOOD, operator("Add", SUMS, 9.0)) == (
        "sums and the like: 9.00 ms a call, in dense 2.00 ms",
    )
    slow = operator("MatMulInteger", INTEGER, 25.0, macs=20 * G)
    assert reasons(slow, SUM) == ("products with weights take 25.00 ms a call, in dense 20.00 ms",)


def test_products_left_in_float():
    half = operator("MatMulInteger", INTEGER, 2.5, macs=G // 2)
    assert reasons(half, operator("MatMul", FLOAT, 10.0, macs=G // 2), SUM) == (
        "50% of the products with weights still run in float: 10.00 ms a call",
    )
    # a pruned model is float on purpose
    assert "float" not in " ".join(reasons(operator("MatMul", FLOAT, 10.0, macs=G // 2), quantized=False))


def test_unsigned_weights():
    slow = operator("MatMulInteger", INTEGER, 20.0, macs=G)
    (why,) = reasons(slow, SUM, types=("uint8",))
    assert why.startswith(
        "the weights are uint8: on this machine products with them reach 100 GOP/s, with int8"
    )
    assert not [each for each in reasons(slow, SUM, types=("int8",)) if "uint8" in each]


@pytest.mark.parametrize(
    ("flags", "said"), [(("avx2", "fma"), True), (VNNI, False), (("asimddp",), False), ((), False)]
)
def test_a_cpu_without_dot_products(flags, said):
    slow = operator("MatMulInteger", INTEGER, 15.0, macs=G)
    limits = Limits(**{**vars(LIMITS), "integer_gops": {"int8": 130.0, "uint8": 130.0}})
    why = reasons(slow, SUM, types=("int8",), limits=limits, flags=flags)
    assert any("1.3 times the rate of float" in each for each in why) == said


def test_products_far_from_the_peak():
    (why,) = reasons(operator("MatMulInteger", INTEGER, 20.0, macs=G), SUM, types=("int8",))
    assert why.startswith("the integer products run at 100 GOP/s, 25% of the 400 measured here")


def test_widths_that_the_kernels_pad():
    products = operator("MatMul", FLOAT, 12.0, macs=G // 2)
    (why,) = reasons(products, SUM, quantized=False, widths={"ffn": (40, 48)})
    assert why.startswith("feed-forward widths (40) are no multiples of 16, the block of the kernels: 9% of")
    (why,) = reasons(GOOD, SUM, flags=(*VNNI, "amx_int8"), widths={"ffn": (40, 48)})
    assert "(40, 48) are no multiples of 64" in why
    assert "round_to=64" in why
    assert not [each for each in reasons(GOOD, SUM, widths={"ffn": (48, 96)}) if "widths" in each]


def test_lost_fusions_are_counted_for_the_layers_that_are_left():
    fused = variant(operator("Attention", ATTENTION, 2.0), SUM, widths={"ffn": (8,) * 6})
    plain = (operator("Transpose", MOVES, 3.0, nodes=24), SUM)
    why = reasons(*plain, dense=fused)
    assert "a fusion is lost: dense has 6 fused attention nodes, this graph 0; 12 nodes became 30" in why
    shallow = (operator("Attention", ATTENTION, 2.0, nodes=3), operator("Transpose", MOVES, 3.0))
    assert not [each for each in reasons(*shallow, dense=fused, widths={"ffn": (8,) * 3}) if "fusion" in each]


def test_a_model_that_is_too_small():
    (why,) = reasons(operator("MatMulInteger", INTEGER, 0.01, macs=G // 500), p50=0.05)
    assert why.startswith("0.040 of 0.050 ms a call (80%) go into starting it and its 6 nodes")
    # the profiler stretches small nodes beyond the p50: then the price of starting a node tells
    limits = Limits(**{**vars(LIMITS), "node_us": 4.0})
    stretched = operator("Add", SUMS, 0.2, nodes=10)
    (why, *_) = reasons(stretched, p50=0.1, limits=limits)
    assert why.startswith("0.040 of 0.100 ms a call (40%)")


def test_the_largest_effect_comes_first_and_what_is_below_the_noise_is_not_said():
    why = reasons(
        operator("MatMulInteger", INTEGER, 5.5, macs=G),
        operator("Add", SUMS, 3.0),
        operator("Softmax", ATTENTION, 4.0),
        operator("Cast", MOVES, 0.3),
    )
    assert [each.split(":")[0] for each in why] == ["attention", "sums and the like"]
