"""Does it ship: the budget against intervals, never against point estimates."""

from collections.abc import Sequence

from compress.config.target import BudgetConfig
from compress.metrics.statistics import holm, noninferiority_p
from compress.schema.report import Noninferiority, Variant, Verdict


def judge(variants: Sequence[Variant], primary: str, budget: BudgetConfig) -> Verdict:
    """What was asked for, the last variant, is what lies in the artifact, whether it ships or not.

    Where it misses its budget, the last variant that meets it is named beside it, and with
    `budget.fallback` takes its place. Quality counts by the upper end of the paired interval of its drop,
    speed by the lower end of the interval of the speed-up. `variants[0]` is the dense model.
    """
    dense, asked = variants[0], variants[-1]
    missed = misses(asked, dense, primary, budget)
    fitting = [other for other in variants[1:-1] if missed and not misses(other, dense, primary, budget)]
    instead = fitting[-1] if fitting else None
    best, reasons = asked, missed
    if instead is not None and budget.fallback:
        best = instead
        reasons = [f"{asked.name}, which was asked for, misses its budget: {line}" for line in missed]
    return Verdict(
        ships=not missed or best is not asked,
        best=best.name,
        reasons=(*reasons, *_facts(best, dense, primary)),
        instead=None if instead is None or best is instead else instead.name,
        noninferiority=noninferiority(best, dense, primary, budget),
    )


def noninferiority(
    variant: Variant, dense: Variant, primary: str, budget: BudgetConfig
) -> tuple[Noninferiority, ...]:
    """Every quality metric against the same relative budget, with Holm's correction over all of them.

    The verdict rests on the primary metric alone, which was named beforehand; the others show whether
    it was a lucky one.
    """
    metrics = [m for m in dict.fromkeys([primary, *dense.quality]) if m in variant.drop_from_dense]
    if budget.max_quality_drop is None or variant is dense or not metrics:
        return ()
    drops = [variant.drop_from_dense[metric] for metric in metrics]
    margins = [budget.max_quality_drop * abs(score_of(dense, metric)) for metric in metrics]
    p_values = [noninferiority_p(drop, margin) for drop, margin in zip(drops, margins, strict=True)]
    return tuple(
        Noninferiority(metric=metric, drop=drop, margin=margin, p_value=p, p_holm=adjusted)
        for metric, drop, margin, p, adjusted in zip(
            metrics, drops, margins, p_values, holm(p_values), strict=True
        )
    )


def misses(variant: Variant, dense: Variant, primary: str, budget: BudgetConfig) -> list[str]:
    """What of the budget the variant does not meet, each with its numbers; NaN meets nothing."""
    missed = []
    if budget.max_quality_drop is not None:
        drop, scale = variant.drop_from_dense[primary], abs(score_of(dense, primary))
        if not scale > 0:
            missed.append(f"{primary} of the dense model is {scale:g}: no relative drop can be computed")
        elif not drop.ci95[1] / scale <= budget.max_quality_drop:
            missed.append(
                f"{primary} may have dropped by up to {drop.ci95[1] / scale:.1%} "
                f"(budget {budget.max_quality_drop:.1%}; measured {drop.value / scale:+.1%})"
            )
    if budget.min_speedup is not None:
        if dense.not_timed and variant is not dense:
            missed.append(f"no speed-up is known (budget {budget.min_speedup:g}x): {dense.not_timed}")
        elif not variant.speedup and not budget.min_speedup <= 1:  # the dense model is as fast as itself
            missed.append(f"speed-up 1x: it is the dense model (budget {budget.min_speedup:g}x)")
        for workload, speedup in variant.speedup.items():
            if not speedup.ci95[0] >= budget.min_speedup:
                missed.append(
                    f"speed-up at {workload} may be as low as {speedup.ci95[0]:.2f}x "
                    f"(budget {budget.min_speedup:g}x)"
                )
    if budget.max_size_mb is not None and variant.size_bytes > budget.max_size_mb * 1e6:
        missed.append(f"{variant.size_bytes / 1e6:.1f} MB (budget {budget.max_size_mb:g} MB)")
    return missed


def score_of(variant: Variant, metric: str) -> float:
    """Raises KeyError for a metric that was not measured."""
    return (variant.quality.get(metric) or variant.fidelity[metric]).value


def _facts(variant: Variant, dense: Variant, primary: str) -> list[str]:
    facts = [f"no speed-up is known: {dense.not_timed}"] if dense.not_timed and variant is not dense else []
    for workload, speedup in variant.speedup.items():
        low, high = speedup.ci95
        word = "faster" if low > 1 else "slower" if high < 1 else "not faster"
        facts.append(f"{word} at {workload}: {speedup.value:.2f}x [{low:.2f}, {high:.2f}]")
    drop, score = variant.drop_from_dense.get(primary), variant.score(primary)
    if drop is not None and score is not None:
        sign = -1 if score.higher_is_better else 1  # a drop is positive where it got worse
        low, high = sorted(sign * end for end in drop.ci95)
        facts.append(f"{primary} changed by {sign * drop.value:+.4f} [{low:+.4f}, {high:+.4f}]")
    facts.append(f"{variant.size_bytes / 1e6:.1f} MB instead of {dense.size_bytes / 1e6:.1f} MB")
    if (correlated := dense.quality.get("mcc")) is not None and correlated.ci95 == (0.0, 0.0):
        facts.append("the dense model answers every test example alike, so that its accuracy cannot drop")
    return facts
