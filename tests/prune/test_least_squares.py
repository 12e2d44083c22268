"""The repair against numpy's least squares on the raw data."""

import numpy as np
import pytest
import torch

from compress.prune.least_squares import least_squares


@pytest.fixture
def problem():
    """Correlated activations with a mean, a layer that reads them, and what stays."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 3)) @ rng.normal(size=(3, 10)) + 0.3 * rng.normal(size=(4000, 10)) + 2.0
    return x, rng.normal(size=(5, 10)), rng.normal(size=5), np.array([0, 2, 3, 7])


def repair(x, weight, bias, kept, damping):
    new_weight, new_bias = least_squares(
        torch.from_numpy(weight),
        torch.from_numpy(bias),
        torch.from_numpy(x.mean(0)),
        torch.from_numpy(np.cov(x.T, bias=True)),
        torch.from_numpy(kept),
        damping,
    )
    return new_weight.numpy(), new_bias.numpy()


def test_equals_lstsq_on_raw_data_without_damping(problem):
    x, weight, bias, kept = problem
    target = x @ weight.T + bias
    design = np.hstack([x[:, kept], np.ones((len(x), 1))])
    expected = np.linalg.lstsq(design, target, rcond=None)[0].T
    new_weight, new_bias = repair(x, weight, bias, kept, 1e-12)
    np.testing.assert_allclose(new_weight, expected[:, :-1], atol=1e-7)
    np.testing.assert_allclose(new_bias, expected[:, -1], atol=1e-7)


def test_equals_ridge_towards_the_old_weights(problem):
    x, weight, bias, kept = problem
    damping = 0.05
    centred = x - x.mean(0)
    strength = damping * (centred[:, kept] ** 2).mean()
    residual = centred @ weight.T - centred[:, kept] @ weight[:, kept].T
    design = np.vstack([centred[:, kept], np.sqrt(strength * len(x)) * np.eye(len(kept))])
    target = np.vstack([residual, np.zeros((len(kept), len(weight)))])
    change = np.linalg.lstsq(design, target, rcond=None)[0].T
    new_weight, new_bias = repair(x, weight, bias, kept, damping)
    np.testing.assert_allclose(new_weight, weight[:, kept] + change, atol=1e-8)
    means = (x @ weight.T + bias).mean(0), (x[:, kept] @ new_weight.T + new_bias).mean(0)
    np.testing.assert_allclose(*means, atol=1e-8)


def test_heavy_damping_keeps_the_weights_and_moves_the_mean(problem):
    x, weight, bias, kept = problem
    new_weight, new_bias = repair(x, weight, bias, kept, 1e9)
    np.testing.assert_allclose(new_weight, weight[:, kept], atol=1e-6)
    gone = np.setdiff1d(np.arange(10), kept)
    np.testing.assert_allclose(new_bias, bias + weight[:, gone] @ x[:, gone].mean(0), atol=1e-5)


def test_keeping_everything_changes_nothing(problem):
    x, weight, bias, _ = problem
    new_weight, new_bias = repair(x, weight, bias, np.arange(10), 0.01)
    np.testing.assert_allclose(new_weight, weight, atol=1e-12)
    np.testing.assert_allclose(new_bias, bias, atol=1e-12)


def test_dead_channels_do_not_stop_it():
    weight, bias = torch.randn(3, 6), torch.randn(3)
    kept = torch.tensor([0, 1])
    new_weight, new_bias = least_squares(
        weight, bias, torch.zeros(6).double(), torch.zeros(6, 6).double(), kept, 0.01
    )
    torch.testing.assert_close(new_weight, weight[:, kept])
    torch.testing.assert_close(new_bias, bias)
    assert new_weight.dtype == torch.float32
