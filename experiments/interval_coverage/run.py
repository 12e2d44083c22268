"""Coverage of our 95 % intervals in simulated experiments whose true value is known.

    python experiments/interval_coverage/run.py [--experiments 1000]

writes results.csv beside this file. Methods in brackets are not ours: they show why we took another.
"""

import argparse
import csv
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from scipy import stats

from compress.metrics import statistics as ours
from compress.metrics.correlations import Kind, correlation, paired_correlation_drop

Interval = tuple[float, float]
Outcome = dict[str, tuple[Interval, float]]  # method -> interval, truth
DOCUMENTS = 50  # as in Lee's data: 1,225 pairs


def means(rng: np.random.Generator) -> Outcome:
    near_one = rng.beta(8, 0.4, size=100)  # like cosines to the dense model: bounded by 1, a tail to the left
    t = stats.t.interval(0.95, 99, near_one.mean(), stats.sem(near_one))
    group = np.repeat(np.arange(40), rng.integers(2, 15, size=40))
    shared = rng.exponential(size=40)[group]
    clustered = shared + rng.normal(size=len(group))
    dense = shared + rng.normal(size=len(group))
    small = dense - 0.1 - 0.3 * rng.exponential(size=40)[group] + 0.2 * rng.normal(size=len(group))
    articles = np.repeat(np.arange(100), 5)
    tail = 3 * rng.normal(size=100)[articles] + 4 * rng.normal(size=500)
    return {
        "mean, skewed": (ours.mean_interval(near_one).ci95, 8 / 8.4),
        "[mean, skewed: t interval]": (t, 8 / 8.4),
        "mean, 40 clusters": (ours.mean_interval(clustered, group).ci95, 1.0),
        "[mean, 40 clusters ignored]": (ours.mean_interval(clustered).ci95, 1.0),
        "drop of a mean, 40 clusters": (ours.paired_mean_drop(dense, small, group).ci95, 0.4),
        "5th percentile, 100 clusters": (
            ours.quantile_interval(tail, 0.05, articles).ci95,
            5 * float(stats.norm.ppf(0.05)),
        ),
        "[5th percentile, 100 clusters ignored]": (
            ours.quantile_interval(tail, 0.05).ci95,
            5 * float(stats.norm.ppf(0.05)),
        ),
        "5th percentile": (ours.quantile_interval(rng.beta(8, 0.4, size=500), 0.05).ci95, _PERCENTILE),
    }


_PERCENTILE = float(stats.beta.ppf(0.05, 8, 0.4))


def proportions(rng: np.random.Generator) -> Outcome:
    # Of 300 examples both models get 85 % right, dense alone 6 %, small alone 3 %.
    kind = rng.choice(4, p=[0.85, 0.06, 0.03, 0.06], size=300)
    dense, small = kind <= 1, (kind == 0) | (kind == 2)
    difference = dense.astype(float) - small
    wald = stats.norm.interval(0.95, difference.mean(), stats.sem(difference))
    # Of 100 documents of 5 examples the examples of every other one fare alike.
    document = np.repeat(np.arange(100), 5)
    fate = np.where((rng.random(100) < 0.5)[document], rng.random(100)[document], rng.random(500))
    first, second = (fate < 0.03) | (fate >= 0.04), fate >= 0.03
    seldom = rng.choice(3, p=[0.994, 0.004, 0.002], size=600)
    one, other = seldom != 2, seldom != 1
    return {
        "accuracy": (ours.accuracy(dense).ci95, 0.91),
        "drop of an accuracy": (ours.paired_accuracy_drop(dense, small).ci95, 0.03),
        "[drop of an accuracy: Wald]": (wald, 0.03),
        "drop of an accuracy, 100 clusters": (ours.paired_accuracy_drop(first, second, document).ci95, 0.02),
        "[drop of an accuracy, 100 clusters: studentised bootstrap]": (
            ours.paired_mean_drop(first.astype(float), second.astype(float), document).ci95,
            0.02,
        ),
        "drop of an accuracy, seldom unlike": (ours.paired_accuracy_drop(one, other).ci95, 0.002),
        "[drop of an accuracy, seldom unlike: studentised bootstrap]": (
            ours.paired_mean_drop(one.astype(float), other.astype(float)).ci95,
            0.002,
        ),
    }


def independent_pairs(rng: np.random.Generator) -> Outcome:
    dense, small, human = _independent(300, rng)
    outcome: Outcome = {}
    for kind in ("spearman", "pearson"):
        value, drop = _truth(kind, "independent")
        outcome[f"{kind}, independent pairs"] = (correlation(kind, dense, human).ci95, value)
        outcome[f"drop of {kind}, independent pairs"] = (
            paired_correlation_drop(kind, dense, small, human).ci95,
            drop,
        )
    return outcome


def shared_documents(rng: np.random.Generator) -> Outcome:
    dense, small, human, nodes = _documents(DOCUMENTS, rng)
    outcome: Outcome = {}
    for kind in ("spearman", "pearson"):
        value, drop = _truth(kind, "documents")
        outcome[f"{kind}, pairs of 50 documents"] = (correlation(kind, dense, human, nodes).ci95, value)
        outcome[f"drop of {kind}, pairs of 50 documents"] = (
            paired_correlation_drop(kind, dense, small, human, nodes).ci95,
            drop,
        )
    value, drop = _truth("spearman", "documents")
    ranks = np.stack([stats.rankdata(scores) for scores in (dense, small, human)])
    pairs = rng.multinomial(len(human), np.full(len(human), 1 / len(human)), size=400)
    documents = rng.multinomial(DOCUMENTS, np.full(DOCUMENTS, 1 / DOCUMENTS), size=400)
    for name, weights in (
        ("pairs resampled", pairs),
        ("pigeonhole bootstrap", documents[:, nodes[:, 0]] * documents[:, nodes[:, 1]]),
    ):
        before, after = _weighted_pearson(ranks, weights)
        outcome[f"[spearman: {name}]"] = (_percentiles(before), value)
        outcome[f"[drop of spearman: {name}]"] = (_percentiles(before - after), drop)
    return outcome


def _independent(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    human = rng.normal(size=n)
    dense = human + 0.8 * rng.normal(size=n)
    return dense, dense + 0.4 * rng.normal(size=n), np.round(2 * human)  # judgements have many ties


def _documents(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Cosines of a dense and a small model and human judgement for all pairs of n documents."""
    meaning = rng.normal(size=(n, 20)) + 0.5
    dense = meaning + rng.normal(size=meaning.shape)
    small = dense + 0.5 * rng.normal(size=meaning.shape)
    left, right = np.triu_indices(n, 1)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (meaning, dense, small)]
    true, before, after = ((x[left] * x[right]).sum(axis=1) for x in unit)
    human = np.round(20 * np.clip(true + 0.1 * rng.normal(size=len(left)), 0, 1))
    return before, after, human, np.stack([left, right], axis=1)


@cache
def _truth(kind: Kind, world: str) -> tuple[float, float]:
    """The dense model's correlation and the drop from it, in a population of a million pairs."""
    rng = np.random.default_rng(12345)
    if world == "independent":
        dense, small, human = _independent(1_000_000, rng)
    else:
        worlds = [_documents(700, rng)[:3] for _ in range(6)]
        dense, small, human = (np.concatenate(scores) for scores in zip(*worlds, strict=True))
    correlate = stats.spearmanr if kind == "spearman" else stats.pearsonr
    before, after = (float(correlate(scores, human).statistic) for scores in (dense, small))
    return before, before - after


def _weighted_pearson(ranks: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Correlation of rows 0 and of 1 with row 2 of `ranks` [3, n], one for each row of `weights` [b, n]."""
    x, y, h = (ranks - ranks.mean(axis=1, keepdims=True)) / ranks.std(axis=1, keepdims=True)
    moments = weights @ np.stack([x, y, h, x * x, y * y, h * h, x * h, y * h], axis=1)
    mx, my, mh, xx, yy, hh, xh, yh = (moments / weights.sum(axis=1, keepdims=True)).T
    spread = hh - mh**2
    return (xh - mx * mh) / np.sqrt((xx - mx**2) * spread), (yh - my * mh) / np.sqrt((yy - my**2) * spread)


def _percentiles(values: np.ndarray) -> Interval:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


SCENARIOS: tuple[Callable[[np.random.Generator], Outcome], ...] = (
    means,
    proportions,
    independent_pairs,
    shared_documents,
)


def simulate(experiments: int, scenarios: tuple[Callable[[np.random.Generator], Outcome], ...] = SCENARIOS):
    """Method -> (coverage, share of truths below the interval, share above, mean width)."""
    seen = defaultdict(list)
    for scenario in scenarios:
        for seed in range(experiments):
            for method, ((low, high), truth) in scenario(np.random.default_rng(seed)).items():
                seen[method].append((low <= truth <= high, truth < low, truth > high, high - low))
    return {method: tuple(np.mean(rows, axis=0)) for method, rows in seen.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--experiments", type=int, default=1000)
    experiments = parser.parse_args().experiments
    with (Path(__file__).parent / "results.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["method", "experiments", "coverage", "truth_below", "truth_above", "mean_width"])
        for scenario in SCENARIOS:
            for method, numbers in simulate(experiments, (scenario,)).items():
                table.writerow([method, experiments, *(f"{number:.4f}" for number in numbers)])
                print(f"{method:45s} {100 * numbers[0]:5.1f} %  width {numbers[3]:.4f}", flush=True)


if __name__ == "__main__":
    main()
