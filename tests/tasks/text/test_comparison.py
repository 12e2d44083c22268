"""Which interval a metric of texts gets, held against scipy and arithmetic by hand."""

import numpy as np
import pytest
from scipy import stats

from compress.config.declare import declare_options
from compress.registry import OPTIONS
from compress.tasks.text.comparison import Comparison

declare_options()
CONFIG = OPTIONS["evaluate"]["text_classification"]()
SEVERAL = np.arange(50)


def test_right_and_wrong_answers_have_the_intervals_of_proportions():
    right = np.ones(50)
    found = Comparison(CONFIG, itself=False)
    found.mean("accuracy", [right, right], SEVERAL)
    half = 3.841459 / (50 + 3.841459)  # Tango's of models that never disagree: z^2 / (n + z^2)
    wilson = stats.binomtest(50, 50).proportion_ci(0.95, method="wilson")
    assert found.drops["accuracy"].ci95 == pytest.approx((-half, half), abs=1e-6)
    assert found.quality["accuracy"].ci95 == pytest.approx((wilson.low, wilson.high), abs=1e-9)


def test_agreement_is_a_proportion_that_is_told_as_fidelity():
    found = Comparison(CONFIG, itself=False)
    found.nearness("agreement", np.r_[0.0, np.ones(49)], SEVERAL, 1.0)
    wilson = stats.binomtest(49, 50).proportion_ci(0.95, method="wilson")
    assert not found.quality
    assert found.fidelity["agreement"].ci95 == pytest.approx((wilson.low, wilson.high), abs=1e-9)
    assert found.drops["agreement"].value == pytest.approx(0.02)


def test_scores_between_have_a_width_where_nothing_changed():
    scores = np.linspace(0, 1, 50)
    found = Comparison(CONFIG, itself=False)
    found.mean("ndcg", [scores, scores], SEVERAL)
    assert found.drops["ndcg"].ci95 == pytest.approx((-1.959964 / 50, 1.959964 / 50), abs=1e-6)


def test_the_dense_model_beside_itself_drops_by_nothing():
    found = Comparison(CONFIG, itself=True)
    found.mean("accuracy", [np.r_[0.0, np.ones(49)]] * 2, SEVERAL)
    found.mean("ndcg", [np.linspace(0, 1, 50)] * 2, SEVERAL)
    found.nearness("kl", np.zeros(50), SEVERAL, 0.0)
    drops = found.result(None, "accuracy").drop_from_dense
    assert set(drops) == {"accuracy", "ndcg", "kl"}
    assert {(drop.value, *drop.ci95) for drop in drops.values()} == {(0.0, 0.0, 0.0)}
