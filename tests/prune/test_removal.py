"""Which columns go: against exhaustive search by numpy's least squares."""

from itertools import chain, combinations

import numpy as np
import torch

from compress.config import LanguageImportance
from compress.prune.removal import keep_groups
from compress.prune.repair import fit, least_squares


def problem(width=6, out=4, tokens=400, seed=0):
    random = np.random.default_rng(seed)
    h = random.normal(size=(tokens, width)) @ random.normal(size=(width, width))
    return h, random.normal(size=(out, width))


def keep(kind, w, gram, size, count):
    found = keep_groups(
        LanguageImportance[kind], torch.from_numpy(w), torch.from_numpy(gram), size, count, 1e-10
    )
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


def test_wanda_and_magnitude_by_hand():
    w = np.array([[3.0, 1.0, 2.0]])
    gram = np.diag([0.01, 1.0, 4.0])
    assert keep("magnitude", w, gram, 1, 2) == [0, 2]
    assert keep("wanda", w, gram, 1, 2) == [1, 2]


def test_fit_is_numpys_least_squares():
    h, w = problem(tokens=50)
    other = h + np.random.default_rng(1).normal(size=h.shape) * 0.3
    y, kept = h @ w.T, [0, 2, 5]
    expected = np.linalg.lstsq(other[:, kept], y, rcond=None)[0].T
    found = fit(
        torch.from_numpy(w),
        torch.from_numpy(other.T @ other / 50),
        torch.from_numpy(y.T @ other / 50),
        torch.tensor(kept),
        1e-14,
    )
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


def test_strong_damping_leaves_the_weights_as_they_were():
    h, w = problem()
    gram = torch.from_numpy(h.T @ h / len(h))
    weight, kept = torch.from_numpy(w), torch.tensor([1, 4])
    found = fit(weight, gram, weight @ gram * 3, kept, 1e12)
    torch.testing.assert_close(found, weight[:, kept], rtol=1e-6, atol=1e-6)


def test_of_one_stream_it_is_the_repair_without_means():
    h, w = problem()
    gram, weight, kept = torch.from_numpy(h.T @ h / len(h)), torch.from_numpy(w), torch.tensor([0, 1, 3])
    centred, _ = least_squares(
        weight, torch.zeros(4).double(), torch.zeros(6).double(), gram, kept, damping=0.01
    )
    torch.testing.assert_close(fit(weight, gram, weight @ gram, kept, 0.01), centred)
