"""What the reports say of time: its noise, where a call spends it, how far the machine's limits are."""

from compress.report.format import MISSING, interval, megabytes, number, speed_word
from compress.report.section import Section, best_variant, names
from compress.schema.report import Report, Variant
from compress.schema.speed import KINDS

_LEAST_SHARE = 0.01  # of the time, for an operator to be named


def timing_sections(report: Report) -> list[Section]:
    return [
        Section("noise", "Noise of the timing", lines=noise_advice(report)),
        _card(report),
        *_not_faster(report),
        _advice(report),
        _kinds(report),
        _operators(report),
        _limits(report),
    ]


def noise_advice(report: Report) -> tuple[str, ...]:
    """The noise and, since a timing is kept for later runs like any result, how to time again."""
    if not report.noise:
        return ()
    earlier = any(stage.name == "benchmark" and stage.reused for stage in report.stages)
    # a report from before the group `benchmark` has its settings in `target`
    timing = report.config.get("benchmark") or report.config.get("target")
    seed = timing.get("seed", 0) if isinstance(timing, dict) else 0
    whose = "timed by an earlier run" if earlier else "later runs reuse this timing"
    return (*report.noise, f"{whose}; to time again, on a quieter machine: benchmark.seed={int(seed) + 1}")


def _card(report: Report) -> Section:
    """How the code of the model card does, by workload."""
    rows = [
        (workload, interval(ratio.value, ratio.ci95), speed_word(ratio))
        for workload, ratio in report.card_speed.items()
    ]
    lines = (
        "The code of README.md in `artifact/`, run in a process of its own, against what was timed: above 1 "
        "it is faster.",
    )
    header = ("workload", "times as fast", "")
    failed = ("The code of README.md in `artifact/` did not run on the target:", report.card_failure)
    return Section("card", "As shipped", header, rows, failed if report.card_failure else lines * bool(rows))


def _not_faster(report: Report) -> list[Section]:
    return [
        Section(f"not-faster-{i}-{j}", f"Why {variant.name} is not faster at {workload}", lines=sentences)
        for i, variant in enumerate(report.variants)
        for j, (workload, sentences) in enumerate(variant.not_faster.items())
    ]


def _advice(report: Report) -> Section:
    lines = tuple(line for variant in report.variants for line in variant.advice)
    return Section("advice", "What would be faster on this target", lines=lines)


def _kinds(report: Report) -> Section:
    """A row per workload and class of operators, a column per variant."""
    rows = []
    for workload in names(report, "profile"):
        every = [kind_ms(variant, workload) for variant in report.variants]
        totals = [sum(of_variant.values()) for of_variant in every]
        for kind in KINDS:
            if any(kind in of_variant for of_variant in every):
                cells = [
                    _ms(of_variant.get(kind), total) for of_variant, total in zip(every, totals, strict=True)
                ]
                rows.append((workload, kind, *cells))
        rows.append((workload, "all operators", *(_ms(total or None, None) for total in totals)))
    header = ("workload", "ms a call", *(variant.name for variant in report.variants))
    return Section("time", "Where the time of a call goes", header, rows)


def kind_ms(variant: Variant, workload: str) -> dict[str, float]:
    """Milliseconds by class of operators, in the order of KINDS; empty without a profile."""
    profile = variant.profile.get(workload)
    operators = profile.operators if profile else ()
    kinds = [kind for kind in KINDS if any(operator.kind == kind for operator in operators)]
    return {kind: sum(operator.ms for operator in operators if operator.kind == kind) for kind in kinds}


def _ms(value: float | None, total: float | None) -> str:
    if value is None:
        return MISSING
    return f"{number(value)} ({100 * value / total:.0f} %)" if total else number(value)


def _operators(report: Report) -> Section:
    """The slowest operators of the variant that is kept."""
    best = best_variant(report)
    rows = []
    for workload, profile in best.profile.items():
        total = sum(operator.ms for operator in profile.operators)
        shown = [operator for operator in profile.operators if operator.ms >= _LEAST_SHARE * total]
        rows += [
            (workload, operator.op_type, operator.kind, str(operator.nodes), _ms(operator.ms, total))
            for operator in shown
        ]
        if rest := profile.operators[len(shown) :]:
            nodes, ms = sum(operator.nodes for operator in rest), sum(operator.ms for operator in rest)
            rows.append((workload, f"{len(rest)} others", MISSING, str(nodes), _ms(ms, total)))
    header = ("workload", "operator", "class", "nodes", "ms a call")
    return Section("operators", f"Operators of {best.name}", header, rows)


def _limits(report: Report) -> Section:
    """What the machine reaches, and how far each variant is from the least time it could take."""
    limits, title = report.limits, "Distance from the machine's limit"
    if limits is None:
        return Section("limits", title)
    gops = ", ".join(
        f"{number(rate)} GOP/s with {name} weights" for name, rate in limits.integer_gops.items()
    )
    cache = "unknown" if limits.cache_bytes is None else f"{megabytes(limits.cache_bytes)} MB"
    lines = (
        f"Measured on this machine with {limits.threads} threads: {number(limits.float32_gflops)} GFLOP/s "
        f"in float32 products, {gops}, {number(limits.bandwidth_gb_per_s)} GB/s from memory; "
        f"last cache {cache}; {number(limits.node_us)} microseconds to start a node.",
        "The limit is the time of the products alone at these rates, or of reading their weights from memory "
        "where they do not fit the cache.",
    )
    rows = []
    for variant in report.variants:
        for workload, floor in variant.floor.items():
            latency = variant.latency_ms.get(workload)
            parts = (floor.integer_ms, floor.float_ms, floor.memory_ms, floor.ms)
            far = f"{number(latency.p50 / floor.ms)} x" if latency and floor.ms else MISSING
            p50 = number(latency.p50) if latency else MISSING
            rows.append((variant.name, workload, *map(number, parts), p50, far))
    costs = ("integers, ms", "floats, ms", "memory, ms", "limit, ms", "p50, ms", "p50 / limit")
    return Section("limits", title, ("variant", "workload", *costs), rows, lines)
