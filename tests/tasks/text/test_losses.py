"""Losses of heads by hand-computed values and what they must not depend on."""

import math

import pytest
import torch

from compress.tasks.text.losses import ranking_error

NAN = math.nan
LOG = math.log


@pytest.mark.parametrize(
    ("scores", "gains", "queries", "expected"),
    [
        # one of four equal passages answers
        ([0, 0, 0, 0], [0, 1, 0, 0], [7, 7, 7, 7], LOG(4)),
        # two of three answer, one of them twice as well: shares 2/3 and 1/3 of softmax (1/4, 1/4, 1/2)
        ([0, 0, LOG(2)], [2, 0, 1], [0, 0, 0], 2 / 3 * LOG(4) + 1 / 3 * LOG(2)),
        # the mean of two queries, which need not lie together
        ([0, 0, LOG(3), 0], [1, 0, 1, 0], [0, 0, 1, 1], (LOG(2) + LOG(4 / 3)) / 2),
        ([0, LOG(3), 0, 0], [1, 1, 0, 0], [0, 1, 0, 1], (LOG(2) + LOG(4 / 3)) / 2),
        # what nobody knows, and a query that nothing answers, count for nothing
        ([0, 0, 9], [1, 0, NAN], [0, 0, 0], LOG(2)),
        ([0, 0, 5, 9], [1, 0, 0, 0], [0, 0, 1, 1], LOG(2)),
        # a pair alone has a probability
        ([LOG(3)], [1], [0], LOG(4 / 3)),
        ([LOG(3)], [4], [0], LOG(4 / 3)),
        ([LOG(3)], [0], [0], LOG(4)),
    ],
)
def test_the_softmax_loss_by_hand(scores, gains, queries, expected):
    given = (torch.tensor(each, dtype=torch.float32) for each in (scores, gains, queries))
    assert float(ranking_error(*given)) == pytest.approx(expected, rel=1e-5)


def test_what_all_passages_of_a_query_gain_changes_nothing():
    scores = torch.tensor([0.3, -1.0, 2.0, 0.1, 0.2])
    gains, queries = torch.tensor([0.0, 1, 0, 1, 0]), torch.tensor([0.0, 0, 0, 1, 1])
    moved = scores + torch.tensor([5.0, 5, 5, -2, -2])
    torch.testing.assert_close(ranking_error(scores, gains, queries), ranking_error(moved, gains, queries))


def test_nothing_known_has_no_gradient_but_one():
    scores = torch.zeros(2, requires_grad=True)
    ranking_error(scores, torch.tensor([NAN, NAN]), torch.tensor([0.0, 0.0])).backward()
    assert torch.equal(scores.grad, torch.zeros(2))
