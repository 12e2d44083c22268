"""What a search may try, and what it concludes: pure."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.config.data import TextData, TextFile
from compress.config.evaluate import SentenceSimilarity
from compress.config.export import TorchExport
from compress.config.model import EncoderModel
from compress.config.prune import (
    ChannelPrune,
    Keep,
    LanguageKeep,
    LanguagePrune,
    NoPrune,
    Scope,
    TransformerPrune,
)
from compress.config.quantize import Calibrator, Int8Dynamic, Int8Static, NoQuantize
from compress.config.recover import Distill, NoRecover, NoTrain
from compress.config.run import RunConfig
from compress.config.space import Choice, Float
from compress.config.target import BudgetConfig, LocalTarget
from compress.errors import ConfigError
from compress.judge.pareto import dominates
from compress.judge.verdict import misses
from compress.prune.shares import canonical as canonical_prune
from compress.prune.shares import rounded_width
from compress.schema.estimates import Estimate, Score
from compress.schema.report import Variant
from compress.search.space import (
    Measured,
    cannot_win,
    canonical,
    collect,
    configure,
    geometric_mean,
    hopeless,
    objective_values,
    relative,
    settings_of,
    starts,
    total_violation,
    violations,
    winner,
)

DENSE = {"ffn": (1536,) * 6, "heads": (12,) * 6}


def config(prune=None, quantize=None, recover=None):
    return RunConfig(
        name="x",
        model=EncoderModel(source="path:x"),
        data=TextData(corpora={"c": TextFile(source="path:c")}, test_corpus="c"),
        prune=prune or TransformerPrune(keep=Keep(ffn=0.5)),
        recover=recover or Distill(),
        export=TorchExport(),
        quantize=quantize or Int8Dynamic(min_coverage=0.5),
        evaluate=SentenceSimilarity(primary="cosine"),
        target=LocalTarget(),
        train=NoTrain(),
    )


def measured(drop=0.0, high=None, speedup=2.0, low=None, size=10.0, memory=100.0, drop_low=None, top=None):
    return Measured(
        metric="cosine",
        drop=Estimate(
            value=drop, ci95=(drop if drop_low is None else drop_low, drop if high is None else high)
        ),
        speedup=Estimate(value=speedup, ci95=(low or speedup, top or speedup)),
        slowest=low or speedup,
        size_mb=size,
        memory_mb=memory,
    )


# --- settings


def test_the_space_is_what_the_options_declare():
    assert collect(config()) == {
        "prune.keep.ffn": Float(0.25, 1.0, 0.0625),
        "prune.keep.heads": Float(0.5, 1.0, 0.125),
        "prune.keep.layers": Float(0.5, 1.0, 0.125),
        "prune.importance": Choice(("activation", "taylor")),
        "quantize": Choice(("int8_dynamic", "int8_static", "none")),
        "quantize.calibrator": Choice(("minmax", "entropy", "percentile", "mse")),
    }


def test_an_option_that_prunes_nothing_has_no_settings_of_pruning():
    assert set(collect(config(prune=NoPrune()))) == {"quantize", "quantize.calibrator"}


def test_settings_become_a_config():
    found = configure(
        config(),
        {
            "prune.keep.ffn": 0.25,
            "prune.importance": "taylor",
            "quantize.calibrator": "entropy",
            "quantize": "int8_static",
        },
    )
    assert found.prune == TransformerPrune(importance="taylor", keep=Keep(ffn=0.25))
    # min_coverage is the experiment's; what only the old option had is gone
    assert found.quantize == Int8Static(calibrator=Calibrator.entropy, min_coverage=0.5)
    assert found.recover == Distill()


def test_settings_that_the_option_does_not_have_are_passed_over():
    found = configure(config(), {"quantize": "int8_dynamic", "quantize.calibrator": "entropy"})
    assert found == config()
    assert (
        configure(config(), {"quantize": "none", "quantize.calibrator": "entropy"}).quantize == NoQuantize()
    )


def test_settings_are_checked_as_everybody_elses():
    with pytest.raises(ConfigError, match="out of range"):
        configure(config(), {"prune.keep.ffn": 1.5})


@given(
    st.fixed_dictionaries(
        {
            "prune.keep.ffn": st.sampled_from([0.25, 0.5625, 1.0]),
            "prune.keep.heads": st.sampled_from([0.5, 1.0]),
            "prune.keep.layers": st.sampled_from([0.5, 0.875]),
            "prune.importance": st.sampled_from(["activation", "taylor"]),
            "quantize": st.just("int8_static"),
            "quantize.calibrator": st.sampled_from(["minmax", "percentile"]),
        }
    )
)
def test_settings_can_be_read_back(settings):
    assert settings_of(configure(config(), settings), collect(config())) == settings


def test_the_starts_are_mild_own_and_aggressive():
    mild, own, far = starts(config(), collect(config()))
    assert mild == {
        "prune.keep.ffn": 1.0,
        "prune.keep.heads": 1.0,
        "prune.keep.layers": 1.0,
        "prune.importance": "activation",
        "quantize": "int8_dynamic",
        "quantize.calibrator": "minmax",
    }
    assert own == {**mild, "prune.keep.ffn": 0.5}
    assert far == {**mild, "prune.keep.ffn": 0.25, "prune.keep.heads": 0.5, "prune.keep.layers": 0.5}


def test_own_settings_off_the_grid_start_beside_it():
    off = config(prune=TransformerPrune(importance="magnitude", keep=Keep(ffn=0.51, heads=0.1)))
    own = starts(off, collect(off))[1]
    assert (own["prune.keep.ffn"], own["prune.keep.heads"]) == (0.5, 0.5)
    assert own["prune.importance"] == "activation"


def test_a_start_is_not_repeated():
    whole = config(prune=TransformerPrune())
    assert len(starts(whole, collect(whole))) == 2


# --- the same model, the same config


def keeps(**shares):
    return canonical(config(prune=TransformerPrune(keep=Keep(**shares))), DENSE).prune


def test_shares_that_keep_the_same_are_the_same():
    assert keeps(heads=0.625) == keeps(heads=0.66) == TransformerPrune(keep=Keep(heads=8 / 12))
    assert keeps(layers=0.625) == keeps(layers=0.75)  # 3.75 and 4.5 of 6 layers: 4, as Python rounds
    assert keeps(ffn=0.5) == keeps(ffn=0.51) == TransformerPrune(keep=Keep(ffn=0.5))
    assert keeps(ffn=0.5) != keeps(ffn=0.5625)


@given(st.floats(0.01, 1.0), st.floats(0.01, 1.0), st.floats(0.01, 1.0))
def test_the_canonical_form_changes_nothing_that_is_kept(ffn, heads, layers):
    prune = keeps(ffn=ffn, heads=heads, layers=layers)
    found = prune.keep if isinstance(prune, TransformerPrune) else Keep()
    assert rounded_width(1536, found.ffn, 64) == rounded_width(1536, ffn, 64)
    assert rounded_width(12, found.heads, 1) == rounded_width(12, heads, 1)
    assert max(1, round(6 * found.layers)) == max(1, round(6 * layers))
    again = canonical(config(prune=prune), DENSE).prune
    assert again == prune


def test_where_nothing_goes_nothing_is_pruned_or_recovered():
    found = canonical(config(prune=TransformerPrune(keep=Keep(ffn=0.99))), DENSE)
    assert (found.prune, found.recover) == (NoPrune(), NoRecover())
    assert canonical(config(prune=NoPrune()), DENSE) == config(prune=NoPrune())


def test_language_models_and_convolutions_have_a_canonical_form_too():
    widths = {"ffn": (1536,) * 30, "kv_heads": (3,) * 30, "vocabulary": (49152,)}

    def language(vocabulary=None, **shares):
        prune = LanguagePrune(keep=LanguageKeep(**shares), vocabulary=vocabulary)
        return canonical_prune(prune, widths)

    assert language(ffn=0.8) == language(ffn=0.79) == LanguagePrune(keep=LanguageKeep(ffn=1216 / 1536))
    assert language(layers=0.9) == language(layers=0.91) != language(layers=0.94)
    assert language(ffn=0.99) == NoPrune()
    assert language(ffn=0.99, vocabulary=24576) == LanguagePrune(vocabulary=24576)
    ragged = LanguagePrune(scope=Scope["global"], keep=LanguageKeep(ffn=0.79))
    assert canonical_prune(ragged, widths) == ragged  # a width for each layer: only the share is known
    channels = {"channels": (32, 64)}
    assert canonical_prune(ChannelPrune(keep=1.0), channels) == NoPrune()
    for goal in ({"macs": 0.5}, {"latency_ms": 4.0}, {"sparse_epochs": 1}):
        assert canonical_prune(ChannelPrune(keep=1.0, **goal), channels) == ChannelPrune(keep=1.0, **goal)
    assert canonical_prune(ChannelPrune(keep=0.5), channels) == ChannelPrune(keep=0.5)


# --- numbers


def test_a_relative_drop():
    drop = Estimate(value=0.05, ci95=(-0.01, 0.11))
    assert relative(drop, -0.5) == Estimate(value=0.1, ci95=(-0.02, 0.22))
    assert math.isnan(relative(drop, 0.0).value)


def test_the_mean_of_speedups_is_geometric():
    both = [Estimate(value=2.0, ci95=(1.0, 4.0)), Estimate(value=8.0, ci95=(4.0, 9.0))]
    found = geometric_mean(both)
    np.testing.assert_allclose([found.value, *found.ci95], [4.0, 2.0, 6.0])
    assert geometric_mean([]) == Estimate(value=1.0, ci95=(1.0, 1.0))


def test_objectives_are_small_where_good():
    one = measured(drop=0.1, speedup=4.0, size=7.0, memory=90.0)
    assert objective_values(one, ["quality_drop", "latency", "size", "memory"]) == (0.1, 0.25, 7.0, 90.0)
    assert objective_values(one, ["size"]) == (7.0,)


def test_violations_by_hand():
    budget = BudgetConfig(max_quality_drop=0.01, min_speedup=2.5, max_size_mb=20)
    found = violations(measured(drop=0.0, high=0.03, speedup=3.0, low=2.0, size=15), budget)
    assert found == pytest.approx({"quality_drop": 0.02, "speedup": 0.2, "size": -0.25})
    assert total_violation(measured(drop=0.0, high=0.03, low=2.0, size=15), budget) == pytest.approx(0.22)
    assert violations(measured(), BudgetConfig()) == {}


def test_what_is_no_number_violates():
    assert total_violation(measured(drop=math.nan), BudgetConfig(max_quality_drop=0.5)) > 100


NUMBERS = st.floats(0.01, 5.0)


@given(
    *([st.floats(-0.3, 0.3), st.floats(0.001, 0.5), NUMBERS, NUMBERS, NUMBERS]),
    st.one_of(st.none(), st.floats(0, 0.5)),
    *([st.one_of(st.none(), NUMBERS)] * 2),
)
def test_feasible_is_what_the_verdict_ships(
    drop, width, score, speedup, size, max_drop, min_speedup, max_size
):
    """The same budget, told by the other code."""
    budget = BudgetConfig(max_quality_drop=max_drop, min_speedup=min_speedup, max_size_mb=max_size)
    estimate = Estimate(value=drop, ci95=(drop - width, drop + width))
    speeds = {"a": Estimate(value=speedup, ci95=(speedup / 2, speedup * 2))}
    common = {"stage": "x", "path": "x", "sha256": "", "parameters": 1, "macs": 1}
    dense = Variant(
        name="dense",
        size_bytes=10**8,
        quality={"m": Score(value=score, ci95=(0, 1), n=9, higher_is_better=True)},
        **common,
    )
    small = Variant(
        name="s", size_bytes=round(size * 1e6), drop_from_dense={"m": estimate}, speedup=speeds, **common
    )
    found = Measured(
        metric="m",
        drop=relative(estimate, score),
        speedup=geometric_mean(speeds.values()),
        slowest=speedup / 2,
        size_mb=small.size_bytes / 1e6,
        memory_mb=1.0,
    )
    assert (total_violation(found, budget) == 0) == (not misses(small, dense, "m", budget))


# --- the glance


def test_what_is_slower_than_the_best_beyond_noise_cannot_win():
    best = measured(speedup=3.0, low=2.8)
    no_budget = BudgetConfig()
    assert "too slow" in cannot_win(measured(speedup=2.5, top=2.7), best, ["latency"], no_budget)
    assert cannot_win(measured(speedup=2.5, top=2.9), best, ["latency"], no_budget) is None
    # with another objective a slow candidate may be the best
    assert cannot_win(measured(speedup=2.5, top=2.7), best, ["latency", "size"], no_budget) is None
    assert cannot_win(measured(speedup=0.5), None, ["latency"], no_budget) is None


def test_size_and_speed_of_the_budget_rule_out():
    budget = BudgetConfig(min_speedup=2.5, max_size_mb=20)
    assert cannot_win(measured(size=21, speedup=3), None, ["latency"], budget) == "21.0 MB (budget 20 MB)"
    assert "budget 2.5x" in cannot_win(measured(speedup=2.0, top=2.4), None, ["size"], budget)
    assert cannot_win(measured(speedup=2.0, top=2.6), None, ["size"], budget) is None
    assert "not smaller" in cannot_win(measured(size=9), measured(size=9), ["size"], BudgetConfig())


PAST = [(measured(drop=d), measured(drop=d - 0.05, high=d - 0.04)) for d in (0.02, 0.08, 0.10)]
BUDGET = BudgetConfig(max_quality_drop=0.01)


def test_hopeless_is_what_the_largest_gain_would_not_save():
    # gains 0.04; as shares of the drop before: 2.0, 0.5, 0.4; the largest share wins over all
    assert hopeless(measured(drop=0.5), PAST, BUDGET) is None
    weak = [(measured(drop=d), measured(drop=d - 0.02, high=d - 0.01)) for d in (0.1, 0.12, 0.2)]
    # the largest share is 0.1: 0.2 -> 0.18; begun worse than the median 0.12
    reason = hopeless(measured(drop=0.2), weak, BUDGET)
    assert reason == "hopeless: +20.0% before recovery, +18.0% after the largest gain so far (budget 1.0%)"
    assert hopeless(measured(drop=0.11), weak, BUDGET) is None  # better than the median of the failed
    assert hopeless(measured(drop=0.2, drop_low=0.01), weak, BUDGET) is None  # not sure that it is bad


def test_nothing_is_hopeless_before_recovery_is_known():
    weak = [(measured(drop=0.1), measured(drop=0.1))] * 2
    assert hopeless(measured(drop=0.9), weak, BUDGET) is None
    assert hopeless(measured(drop=0.9), weak + weak, BudgetConfig()) is None
    good = [(measured(drop=0.1), measured(drop=0.0))] * 3  # none of them failed
    assert hopeless(measured(drop=0.9), good, BUDGET) is None


# --- the winner


def test_the_winner_is_feasible_and_best():
    found = [measured(speedup=2.0), measured(speedup=9.0, drop=0.5), measured(speedup=3.0)]
    assert winner(found, ["latency"], BUDGET) == 2


def test_without_a_feasible_one_the_least_infeasible_wins():
    found = [measured(drop=0.5, speedup=9), measured(drop=0.02, speedup=1), measured(drop=0.1)]
    assert winner(found, ["latency"], BUDGET) == 1
    assert winner([], ["latency"], BUDGET) is None


def test_of_a_front_the_point_nearest_to_the_ideal_wins():
    found = [
        measured(drop=0.0, speedup=1.0),
        measured(drop=0.002, speedup=4.0),
        measured(drop=0.01, speedup=5.0),
        measured(drop=0.003, speedup=3.0),  # dominated
    ]
    assert winner(found, ["quality_drop", "latency"], BUDGET) == 1


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), min_size=1, max_size=8))
def test_the_winner_is_never_dominated(points):
    found = [measured(drop=d / 1000, size=float(s)) for d, s in points]
    objectives = ["quality_drop", "size"]
    best = objective_values(found[winner(found, objectives, BUDGET)], objectives)
    assert not any(dominates(objective_values(each, objectives), best) for each in found)
