"""Which columns go: against exhaustive search by numpy's least squares."""

from itertools import chain, combinations

import numpy as np
import torch

from compress.config.prune import LanguageImportance
from compress.prune.least_squares import refit
from compress.prune.select_columns import keep_groups


def problem(width=6, out=4, tokens=400, seed=0):
    random = np.random.default_rng(seed)
    h = random.normal(size=(tokens, width)) @ random.normal(size=(width, width))
    return h, random.normal(size=(out, width))


def keep(kind, w, gram, size, count, information=None):
    weight, moment = torch.from_numpy(w), torch.from_numpy(gram)
    known = None if information is None else torch.tensor(information)
    found = keep_groups(LanguageImportance[kind], weight, moment, size, count, 1e-10, known)
    return found.tolist()


def left_over(h, w, kept):
    y = h @ w.T
    fitted = np.linalg.lstsq(h[:, kept], y, rcond=None)[0]
    return float(((y - h[:, kept] @ fitted) ** 2).mean())


def test_the_first_to_go_is_the_one_least_squares_can_do_without():
    for seed in range(10):
        h, w = problem(seed=seed)
        errors = {i: left_over(h, w, [j for j in range(6) if j != i]) for i in range(6)}
        best = min(errors, key=errors.__getitem__)
        assert keep("obs", w, h.T @ h / len(h), 1, 5) == [j for j in range(6) if j != best]


def test_then_greedily():
    h, w = problem(width=8, seed=3)
    left = list(range(8))
    while len(left) > 4:
        left.remove(min(left, key=lambda i: left_over(h, w, [j for j in left if j != i])))
    assert keep("obs", w, h.T @ h / len(h), 1, 4) == left


def test_groups_go_whole():
    for seed in range(5):
        h, w = problem(width=6, seed=seed)
        pairs = [[0, 1], [2, 3], [4, 5]]
        best = min(combinations(pairs, 2), key=lambda some: left_over(h, w, list(chain(*some))))
        assert keep("obs", w, h.T @ h / len(h), 2, 2) == list(chain(*best))


def test_wanda_magnitude_and_information_by_hand():
    w = np.array([[3.0, 1.0, 2.0]])
    gram = np.diag([0.01, 1.0, 4.0])
    assert keep("magnitude", w, gram, 1, 2) == [0, 2]
    assert keep("wanda", w, gram, 1, 2) == [1, 2]
    assert keep("fisher", w, gram, 1, 2, [2.0, 1.0, 0.5]) == [0, 1]
    assert keep("fisher", np.ones((1, 4)), np.eye(4), 2, 1, [2.0, 1.0, 0.5, 3.0]) == [2, 3]


def test_refit_is_numpys_least_squares():
    h, w = problem(tokens=50)
    kept = [0, 2, 5]
    expected = np.linalg.lstsq(h[:, kept], h @ w.T, rcond=None)[0].T
    found = refit(torch.from_numpy(w), torch.from_numpy(h.T @ h / 50), torch.tensor(kept), 1e-14)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


def test_strong_damping_leaves_the_weights_as_they_were():
    h, w = problem()
    weight, kept = torch.from_numpy(w), torch.tensor([1, 4])
    found = refit(weight, torch.from_numpy(h.T @ h / len(h)), kept, 1e12)
    torch.testing.assert_close(found, weight[:, kept], rtol=1e-6, atol=1e-6)
