"""Tokens are drawn with the probabilities that temperature and nucleus leave them."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies

from compress.serve.sampling import choose, nucleus


def test_choices_have_the_probabilities_of_the_nucleus():
    logits, random = np.log([0.1, 0.5, 0.3, 0.1]), np.random.default_rng(0)
    assert choose(logits, 0.0, 1.0, random) == 1
    drawn = [choose(logits, 1.0, 0.7, random) for _ in range(4000)]
    shares = np.bincount(drawn, minlength=4) / len(drawn)
    np.testing.assert_allclose(shares, [0, 5 / 8, 3 / 8, 0], atol=0.03)
    drawn = [choose(logits, 0.5, 1.0, random) for _ in range(4000)]  # squares of the probabilities
    shares = np.bincount(drawn, minlength=4) / len(drawn)
    np.testing.assert_allclose(shares, np.array([1, 25, 9, 1]) / 36, atol=0.03)
    assert {choose(logits, 1.0, 1e-6, random) for _ in range(50)} == {1}
    assert {choose(logits, 1.0, 0.0, random) for _ in range(50)} == {1}


@settings(max_examples=200, deadline=None)
@given(
    logits=strategies.lists(strategies.floats(-30, 30), min_size=1, max_size=40),
    top_p=strategies.floats(0.0, 1.0),
)
def test_a_nucleus_is_the_fewest_likely_tokens_that_sum_to_its_share(logits, top_p):
    """Beside all tokens sorted, which the function avoids."""
    weights = np.exp(np.array(logits) - max(logits))
    shares = np.sort(weights / weights.sum())[::-1]
    tokens, kept = nucleus(np.array(logits), top_p)
    assert len({*tokens}) == len(tokens)
    np.testing.assert_allclose(kept, weights[tokens])
    if top_p == 1.0:
        assert len(tokens) == len(logits)
        return
    np.testing.assert_allclose(np.sort(kept / weights.sum())[::-1], shares[: len(tokens)])
    assert shares[: len(tokens)].sum() >= top_p - 1e-9
    assert len(tokens) == 1 or shares[: len(tokens) - 1].sum() <= top_p + 1e-9


@pytest.mark.parametrize("top_p", [0.3, 0.9, 1.0])
def test_a_seed_repeats_what_was_drawn(top_p):
    logits = np.random.default_rng(1).standard_normal(50)

    def draw(seed):
        random = np.random.default_rng(seed)
        return [choose(logits, 1.5, top_p, random) for _ in range(40)]

    assert draw(1) == draw(1) != draw(2)
