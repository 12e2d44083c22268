"""Why a model is not faster: evidence in, sentences out. Pure.

Each cause carries the milliseconds a call that it can account for; the largest comes first, and what is
below the noise of a profile is not said. Causes overlap (a lost fusion also shows as slower additions), so
that the milliseconds do not add up.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from compress.schema.estimates import Estimate
from compress.schema.report import Variant
from compress.schema.speed import (
    ACTIVATIONS,
    ATTENTION,
    FLOAT,
    INTEGER,
    KINDS,
    MOVES,
    NORMS,
    ROUNDING,
    SUMS,
    Limits,
    Profile,
)

LEAST_SHARE = 0.03  # of the p50: a profile is not exact enough to say less
FAR_FROM_PEAK = 0.3  # of the measured peak: below it the integer units wait
OVERHEAD = 0.15  # of the p50, outside of all operators
# Instructions that add four 8-bit products at once, as in /proc/cpuinfo.
DOT_PRODUCT = {"avx_vnni", "avx512_vnni", "avx512vnni", "amx_int8", "asimddp", "i8mm"}
AMX_DEPTH, VECTOR = 64, 16  # MLAS packs the inner dimension by 64 for AMX, columns by 16 everywhere
_GLUE = (ATTENTION, NORMS, ACTIVATIONS, SUMS, MOVES)
_FUSED = {
    "attention": {"Attention", "MultiHeadAttention", "GroupQueryAttention", "QAttention"},
    "normalisation": {
        "LayerNormalization",
        "SkipLayerNormalization",
        "EmbedLayerNormalization",
        "RMSNormalization",
        "SimplifiedLayerNormalization",
        "SkipSimplifiedLayerNormalization",
    },
    "Gelu": {"Gelu", "BiasGelu", "FastGelu", "QuickGelu"},
}
Cause = tuple[float, str]  # milliseconds a call, sentence


@dataclass(frozen=True, kw_only=True)
class Case:
    """What the causes are looked for in: one workload of one variant beside dense."""

    dense: Variant
    variant: Variant
    before: Profile
    after: Profile
    p50: float
    memory_ms: float  # that reading the weights takes at least; 0 where they may stay in a cache
    limits: Limits | None
    flags: Collection[str]
    integer_formats: Collection[str] | None


def explain(
    dense: Variant,
    variant: Variant,
    workload: str,
    limits: Limits | None = None,
    flags: Collection[str] = (),
    noise: Sequence[str] = (),
    integer_formats: Collection[str] | None = None,
) -> tuple[str, ...]:
    """Why `variant` is not faster than `dense` at `workload`; empty where it is, or where nobody timed it.

    The first sentence says how it stands, the others why. `flags` are the CPU's (empty: unknown), `noise`
    the benchmark's reasons to doubt its own numbers. `integer_formats` are those that the target's runtime
    multiplies in integers, where that is not all.
    """
    speedup = variant.speedup.get(workload)
    if speedup is None or speedup.ci95[0] > 1:
        return ()
    opening = _standing(speedup, noise)
    before, after = dense.profile.get(workload), variant.profile.get(workload)
    if before is None or after is None:
        return (opening,)
    case = Case(
        dense=dense,
        variant=variant,
        before=before,
        after=after,
        p50=variant.latency_ms[workload].p50,
        memory_ms=variant.floor[workload].memory_ms if workload in variant.floor else 0.0,
        limits=limits,
        flags=flags,
        integer_formats=integer_formats,
    )
    causes = [
        cause for causes_of in _CAUSES for cause in causes_of(case) if cause[0] >= LEAST_SHARE * case.p50
    ]
    if not causes:
        return (opening, "no class of operators takes longer than in dense, and nothing else stands out")
    return (opening, *(sentence for _, sentence in sorted(causes, key=lambda cause: -cause[0])))


def advise(
    variant: Variant, profiles: Collection[Profile], integer_formats: Collection[str] | None
) -> tuple[str, ...]:
    """What would make a quantized variant faster whose integers the target's runtime multiplies as floats,
    as its profiles tell; also where it is faster than dense, since fewer products are. Else empty."""
    quantized = variant.quantization
    if quantized is None or quantized.coverage_macs < LEAST_SHARE or integer_formats is None:
        return ()
    if not profiles or any(_macs(profile, INTEGER) for profile in profiles):
        return ()
    formats = " or ".join(integer_formats)
    text = (
        f"{variant.name} is multiplied in floats: this runtime multiplies in integers what is in the format "
    )
    return (f"{text}{formats}, which quantize=int8_static writes",)


def _standing(speedup: Estimate, noise: Sequence[str]) -> str:
    low, high = speedup.ci95
    if high < 1:
        return f"slower than dense: {speedup.value:.2f}x [{low:.2f}, {high:.2f}]"
    width = (high - low) / speedup.value
    text = f"cannot be distinguished from dense: the interval of the speed-up is [{low:.2f}, {high:.2f}]"
    text += f", {width:.0%} wide"
    return f"{text}; the timing was noisy ({'; '.join(noise)})" if noise else text


def _slower(case: Case) -> list[Cause]:
    """Classes of operators that take longer than in dense; all products with weights count as one class."""
    before = _products(case.before)
    after = _products(case.after)
    causes = [(after - before, f"products with weights take {after:.2f} ms a call, in dense {before:.2f} ms")]
    for kind in KINDS:
        if kind not in (INTEGER, FLOAT, ROUNDING):
            before, after = _ms(case.before, kind), _ms(case.after, kind)
            causes.append((after - before, f"{kind}: {after:.2f} ms a call, in dense {before:.2f} ms"))
    return causes


def _rounding(case: Case) -> list[Cause]:
    rounding = [operator for operator in case.after.operators if operator.kind == ROUNDING]
    ms = sum(operator.ms for operator in rounding)
    names = ", ".join(f"{operator.nodes} {operator.op_type}" for operator in rounding)
    share = ms / max(_ms(case.after), 1e-9)
    text = f"rounding to integers and back takes {share:.0%} of the operators' time, {ms:.2f} ms a call"
    return [(ms - _ms(case.before, ROUNDING), f"{text} ({names})")]


def _coverage(case: Case) -> list[Cause]:
    """Products that a quantized model still computes in float; what integers would gain at best."""
    if case.variant.quantization is None or case.limits is None:
        return []
    real, ms = _macs(case.after, FLOAT), _ms(case.after, FLOAT)
    share = real / max(1, real + _macs(case.after, INTEGER))
    gain = max(0.0, 1 - case.limits.float32_gflops / max(case.limits.integer_gops.values()))
    return [(ms * gain, f"{share:.0%} of the products with weights still run in float: {ms:.2f} ms a call")]


def _format(case: Case) -> list[Cause]:
    """Integers in a format that the target's runtime turns to floats before it multiplies."""
    said = advise(case.variant, [case.after], case.integer_formats)
    return [(_ms(case.after, FLOAT), line) for line in said]


def _types(case: Case) -> list[Cause]:
    if case.limits is None or "uint8" not in case.after.weight_types:
        return []
    signed, unsigned = case.limits.integer_gops["int8"], case.limits.integer_gops["uint8"]
    text = (
        f"the weights are uint8: on this machine products with them reach {unsigned:.0f} GOP/s, "
        f"with int8 weights {signed:.0f} (quantize.weight_type=int8)"
    )
    return [(_ms(case.after, INTEGER) * (1 - unsigned / signed), text)]


def _instructions(case: Case) -> list[Cause]:
    """No VNNI, AMX or dot product: compared with the four times float's rate that they would allow."""
    if case.limits is None or not case.flags or DOT_PRODUCT & set(case.flags):
        return []
    ideal = 2 * _macs(case.after, INTEGER) / (4 * case.limits.float32_gflops) / 1e6
    ratio = max(case.limits.integer_gops.values()) / case.limits.float32_gflops
    text = (
        "this CPU has no instruction for 8-bit dot products (VNNI, AMX; dotprod or i8mm on ARM): integer "
        f"products reach {ratio:.1f} times the rate of float here, where four times is possible with them"
    )
    return [(_ms(case.after, INTEGER) - ideal, text)]


def _memory(case: Case) -> list[Cause]:
    """Weights that come from memory at every call; none where they fit the cache."""
    if case.limits is None or not case.memory_ms:
        return []
    size = sum(operator.weight_bytes for operator in case.after.operators)
    text = (
        f"{size / 1e6:.0f} MB of weights are read at every call, which takes {case.memory_ms:.2f} of "
        f"{case.p50:.2f} ms at the {case.limits.bandwidth_gb_per_s:.1f} GB/s measured here"
    )
    return [(case.memory_ms, f"{text}: fewer or smaller weights would help, faster products would not")]


def _far_from_peak(case: Case) -> list[Cause]:
    macs, ms = _macs(case.after, INTEGER), _ms(case.after, INTEGER)
    if case.limits is None or not macs or not ms:
        return []
    if case.memory_ms >= FAR_FROM_PEAK * ms:  # they wait for memory instead
        return []
    peak = max(case.limits.integer_gops.get(name, 0.0) for name in case.after.weight_types or ("int8",))
    rate = 2 * macs / ms / 1e6
    if rate >= FAR_FROM_PEAK * peak:
        return []
    text = f"the integer products run at {rate:.0f} GOP/s, {rate / peak:.0%} of the {peak:.0f} measured here"
    return [
        (ms * (1 - rate / peak), f"{text}: they are too small, or of a shape that does not fill the units")
    ]


def _widths(case: Case) -> list[Cause]:
    """Feed-forward widths that the kernels pad; the padding's share of the products' time."""
    integers = _macs(case.after, INTEGER) > 0
    block = AMX_DEPTH if integers and "amx_int8" in case.flags else VECTOR
    widths = case.variant.widths.get("ffn", ())
    odd = sorted({width for width in widths if width % block})
    if not odd:
        return []
    padded = sum(-(-width // block) * block for width in widths)
    ms = _products(case.after) * (1 - sum(widths) / padded)
    shown = ", ".join(map(str, odd[:4])) + (", ..." if len(odd) > 4 else "")
    text = f"feed-forward widths ({shown}) are no multiples of {block}, the block of the kernels"
    return [(ms, f"{text}: {padded / sum(widths) - 1:.0%} of padding (prune.round_to={block})")]


def _fusions(case: Case) -> list[Cause]:
    """Fused operators that dense has and the variant lost, counted for the layers that are left."""
    layers = [len(variant.widths.get("ffn", ())) for variant in (case.dense, case.variant)]
    left = layers[1] / layers[0] if all(layers) else 1.0
    grown = sum(max(0.0, _ms(case.after, kind) - _ms(case.before, kind)) for kind in _GLUE)
    causes = []
    for name, fused in _FUSED.items():
        before, after = _nodes(case.before, fused), _nodes(case.after, fused)
        if after < round(before * left):
            text = f"a fusion is lost: dense has {before} fused {name} nodes, this graph {after}"
            causes.append((grown, f"{text}; {_nodes(case.before)} nodes became {_nodes(case.after)}"))
    return causes


def _overhead(case: Case) -> list[Cause]:
    """What a call spends on starting itself and its nodes.

    Either what the operators' times leave of the p50, or the measured price of starting a node: the profiler
    stretches small nodes, so that of a model of nothing else their sum exceeds the p50.
    """
    count = _nodes(case.after)
    starts = count * case.limits.node_us / 1e3 if case.limits else 0.0
    outside = min(case.p50, max(starts, case.p50 - _ms(case.after)))
    if outside < OVERHEAD * case.p50:
        return []
    text = f"{outside:.3f} of {case.p50:.3f} ms a call ({outside / case.p50:.0%}) go into starting it and its"
    return [(outside, f"{text} {count} nodes: the model is too small for cheaper operators to show")]


_CAUSES: tuple[Callable[[Case], list[Cause]], ...] = (
    _slower,
    _rounding,
    _coverage,
    _format,
    _types,
    _instructions,
    _memory,
    _far_from_peak,
    _widths,
    _fusions,
    _overhead,
)


def _products(profile: Profile) -> float:
    return _ms(profile, INTEGER) + _ms(profile, FLOAT)


def _ms(profile: Profile, kind: str | None = None) -> float:
    """Of one kind of operators, or of all."""
    return sum(operator.ms for operator in profile.operators if kind in (None, operator.kind))


def _macs(profile: Profile, kind: str) -> int:
    return sum(operator.macs for operator in profile.operators if operator.kind == kind)


def _nodes(profile: Profile, op_types: Collection[str] = ()) -> int:
    """Of these types, or of all."""
    return sum(o.nodes for o in profile.operators if not op_types or o.op_type in op_types)
