import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from compress.benchmark import stats
from compress.report.format import speed_word
from compress.runner import collect, precision
from compress.schema.estimates import Estimate


def blocks(by_repeat):
    """One block a median, three samples around it."""
    return [
        {"repeat": number, "start": 0.0, "ms": [ms, 0.9 * ms, 1.1 * ms]}
        for number, medians in enumerate(by_repeat)
        for ms in medians
    ]


def simulate(random, slow=1.0, most=20, rounds=8, process=0.01, noise=0.02, rho=0.7, drift=0.2):
    """A run of two models as the runner would do it, its stop included.

    Multiplicative noise: drift over the whole run, an AR(1) process in time, a shift of each process.
    """
    samples = {"spec": {"baseline": "a"}, "workloads": {"w": {"a": [], "b": []}}}
    level, moment = 0.0, 0
    for repeat in range(most):
        shift = random.normal([0, math.log(slow)], process)
        for _ in range(rounds):
            for model in random.permutation(2):
                level = rho * level + random.normal(0, noise * math.sqrt(1 - rho**2))
                moment += 1
                ms = 10 * math.exp(level + shift[model] + drift * moment / (2 * rounds * most))
                block = {"repeat": repeat, "start": moment * 0.05, "ms": [ms]}
                samples["workloads"]["w"]["ab"[model]].append(block)
        if repeat + 1 >= collect.MIN_REPEATS and precision.widest(samples) <= 0.03:
            break
    return stats.speedup(samples["workloads"]["w"]["a"], samples["workloads"]["w"]["b"])


@pytest.mark.parametrize("process", [0.0, 0.01, 0.03])
def test_a_model_against_itself_is_rarely_called_different(process):
    random = np.random.default_rng(7)
    called = [speed_word(simulate(random, process=process)) for _ in range(120)]
    # 3 of 40 are allowed: 7.5 %
    assert sum(verdict != "not told apart" for verdict in called) <= 0.05 * len(called)


@pytest.mark.parametrize("process", [0.0, 0.01, 0.03])
def test_a_slow_down_of_5_percent_is_found(process):
    random = np.random.default_rng(8)
    called = [speed_word(simulate(random, slow=1.05, process=process)) for _ in range(60)]
    assert called.count("slower") >= 0.95 * len(called)


def test_speedup_by_hand():
    # repeats: log 2, log 2, log 3, log 3 (the odd round out is voted down by the median)
    baseline = blocks([[20, 20, 90], [40], [30], [60]])
    variant = blocks([[10, 10, 10], [20], [10], [20]])
    found = stats.speedup(baseline, variant)
    logs = np.log([2, 2, 3, 3])
    half = 4.5407 * logs.std(ddof=1) / 2  # 99 % quantile of t with 3 degrees of freedom, from a table
    assert found.value == pytest.approx(math.sqrt(6))
    assert found.ci95 == pytest.approx(
        (math.sqrt(6) * math.exp(-half), math.sqrt(6) * math.exp(half)), rel=1e-4
    )


def test_the_mean_of_workloads_pairs_their_repeats():
    """2 and 8 times, then 4 and 4: 4 in both repeats, and no interval at all; each alone has a wide one."""
    baseline = blocks([[16.0], [16.0]])
    pairs = [(baseline, blocks([[8.0], [4.0]])), (baseline, blocks([[2.0], [4.0]]))]
    assert np.exp(stats.overall_ratios(pairs)) == pytest.approx([4.0, 4.0])
    found = stats.mean_ratio(stats.overall_ratios(pairs))
    assert (found.value, *found.ci95) == pytest.approx((4.0, 4.0, 4.0))
    assert stats.speedup(*pairs[0]).ci95[0] < 1


@given(
    st.lists(st.floats(0.5, 2.0), min_size=2, max_size=8),
    st.lists(st.floats(0.01, 100.0), min_size=8, max_size=8),
    st.floats(0.1, 10.0),
)
def test_speedup_does_not_see_what_slows_both(ratios, pace, factor):
    slow = [[factor * p * ratio] for ratio, p in zip(ratios, pace, strict=False)]
    fast = [[factor * p] for _, p in zip(ratios, pace, strict=False)]
    found, plain = (
        stats.speedup(blocks(slow), blocks(fast)),
        stats.speedup(blocks([[r] for r in ratios]), blocks([[1.0]] * len(ratios))),
    )
    assert found.value == pytest.approx(plain.value)
    assert found.ci95 == pytest.approx(plain.ci95)
    inverse = stats.speedup(blocks(fast), blocks(slow))
    assert inverse.ci95 == pytest.approx((1 / found.ci95[1], 1 / found.ci95[0]))


def test_speedup_needs_pairs_and_repeats():
    with pytest.raises(ValueError, match="do not pair"):
        stats.speedup(blocks([[1], [2]]), blocks([[1, 2]]))
    with pytest.raises(ValueError, match="two repeats"):
        stats.speedup(blocks([[1, 2]]), blocks([[1, 2]]))


@pytest.mark.parametrize("df", [4, 7, 20, 200])
def test_the_runners_quantile(df):
    assert precision.student_t(df) == pytest.approx(scipy_stats.t.ppf(precision.QUANTILE, df), rel=0.01)


def test_the_runner_stops_by_the_width_that_is_reported():
    baseline = blocks([[10], [11], [10], [12], [10]])
    samples = {"spec": {"baseline": "a"}, "workloads": {"w": {"a": baseline, "b": blocks([[5]] * 5)}}}
    reported = stats.speedup(baseline, blocks([[5]] * 5))
    width = (reported.ci95[1] - reported.ci95[0]) / reported.value
    assert precision.widest(samples) == pytest.approx(width, rel=0.02)


@pytest.mark.parametrize(
    ("ci95", "said"), [((1.01, 1.2), "faster"), ((0.8, 0.99), "slower"), ((0.99, 1.2), "not told apart")]
)
def test_a_word_for_a_ratio(ci95, said):
    assert speed_word(Estimate(value=1.0, ci95=ci95)) == said


def test_latency_percentiles_and_interval():
    random = np.random.default_rng(0)
    by_repeat = [[{"repeat": r, "ms": random.gamma(9, 1, 30).tolist()} for _ in range(8)] for r in range(10)]
    found = stats.latency([block for repeat in by_repeat for block in repeat])
    flat = sorted(ms for repeat in by_repeat for block in repeat for ms in block["ms"])
    assert found.samples == 2400
    assert found.p50 == pytest.approx((flat[1199] + flat[1200]) / 2)
    assert flat[int(0.9 * 2400) - 2] <= found.p90 <= flat[int(0.9 * 2400) + 1]
    assert found.ci95[0] < found.p50 < found.ci95[1]
    truth = scipy_stats.gamma(9).median()
    assert found.ci95[0] < truth < found.ci95[1]
    # Independent samples: as wide as the order statistics say, 1.96 * sqrt(n) / 2 ranks either side,
    # and up to sqrt(2) wider because repeats and blocks are both drawn anew.
    ranks = (flat[1200 + 48] - flat[1200 - 48], found.ci95[1] - found.ci95[0])
    assert 0.6 < ranks[1] / ranks[0] < 2.0


def test_the_interval_of_p50_covers_what_differs_between_processes():
    steady = [{"repeat": r, "ms": [10.0, 10.1]} for r in range(8)]
    shifted = [{"repeat": r, "ms": [10.0 + r, 10.1 + r]} for r in range(8)]
    assert stats.latency(steady).ci95[1] - stats.latency(steady).ci95[0] < 0.2
    assert stats.latency(shifted).ci95[1] - stats.latency(shifted).ci95[0] > 2


def quiet(**changes):
    facts = {
        "seconds": 10.0,
        "own_cpu_seconds": 9.0,
        "other_cpu_seconds": 0.3,
        "throttled": 0,
        "waited_seconds": 0.02,
        "mhz": [3000.0, 2950.0],
    }
    medians = changes.pop("medians", [10.0] * 9)
    return {
        "spec": {"baseline": "a"},
        "noise": [facts | changes],
        "workloads": {"w": {"a": blocks([medians]), "b": blocks([[5.0] * len(medians)])}},
    }


def test_a_quiet_machine_gives_no_reason():
    assert stats.noise(quiet()) == []


def test_steal_counts_in_the_blocks_that_count():
    samples = quiet()
    samples["noise"][0]["steal_seconds"] = 5.0  # in blocks that were measured again
    kept = [{"repeat": 0, "ms": [10.0], "cpu_seconds": 1.0, "steal_seconds": 0.1}]
    samples["workloads"] = {"w": {"a": kept, "b": kept}}
    assert [reason.partition(" of")[0] for reason in stats.noise(samples)] == [
        "steal: the hypervisor took 10%"
    ]


def test_a_machine_that_tells_little_gives_no_reason():
    samples = quiet()
    samples["noise"] = [{"seconds": 10.0, "own_cpu_seconds": 9.0}]
    assert stats.noise(samples) == []


@pytest.mark.parametrize(
    ("changes", "saw"),
    [
        ({"other_cpu_seconds": 9.9}, "other load: other processes kept 0.99 cores busy"),
        ({"waited_seconds": 0.9}, "other load: our threads waited for a core 10% of their CPU time"),
        ({"throttled": 3}, "throttling: the CPU throttled 3 times"),
        ({"mhz": [3000.0, 2000.0]}, "throttling: the frequency moved between 2000 and 3000 MHz"),
        ({"medians": [10, 10, 10, 11, 12, 11, 12, 12, 12]}, "drift: the baseline moved by +20% on w"),
        ({"medians": [12, 12, 12, 11, 10, 10, 9, 9, 9]}, "drift: the baseline moved by -25% on w"),
    ],
)
def test_each_kind_of_noise_is_named_with_what_was_seen(changes, saw):
    reasons = stats.noise(quiet(**changes))
    assert len(reasons) == 1
    assert reasons[0].startswith(saw)


def test_throughput_counts_examples():
    assert stats.throughput(20.0, batch=8) == pytest.approx(400)


def test_energy_is_shared_by_all_calls_of_a_block():
    told = [{"ms": [1.0, 1.0, 1.0], "joules": 8.0}, {"ms": [1.0], "joules": 4.0}]
    assert stats.energy_joules(told) == pytest.approx(2.0)  # 4 + 2 calls, one in each is not timed
    assert stats.energy_joules([*told, {"ms": [1.0]}]) is None
