"""Importances against formulas written out with the weights of one layer."""

import pytest
import torch
import torch_pruning as tp

from compress import models
from compress.config.prune import Importance, Keep, StructuredPrune
from compress.prune import structured
from compress.prune.activation_stats import collect


def config(kind, **changes):
    return StructuredPrune(importance=Importance[kind], keep=Keep(ffn=0.5), round_to=8, **changes)


def ffn_scores(encoder, kind, texts, repair=False):
    layers, chosen = encoder.stack.layers(), config(kind, repair=repair, batch_size=16)
    moments = structured._prepare(encoder, chosen, [layer.ffn_out for layer in layers], texts)
    return structured._scores(encoder, chosen, [layer.ffn_in for layer in layers], moments, repair)


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "mpnet"])
def test_magnitude_is_the_coupled_norm(name, checkpoints, splits):
    encoder = models.load(checkpoints[name])
    for layer, scores in zip(
        encoder.stack.layers(), ffn_scores(encoder, "magnitude", splits.calibration.texts[:8]), strict=True
    ):
        coupled = layer.ffn_in.weight.pow(2).sum(1) + layer.ffn_out.weight.pow(2).sum(0)
        torch.testing.assert_close(scores / scores.sum(), (coupled / coupled.sum()).detach())


@pytest.mark.parametrize("name", ["bert", "mpnet"])
def test_activation_is_variance_times_squared_norm_of_the_reader(name, checkpoints, splits):
    encoder, texts = models.load(checkpoints[name]), splits.calibration.texts
    scores = ffn_scores(encoder, "activation", texts)
    readers = [layer.ffn_out for layer in encoder.stack.layers()]
    moments = collect(encoder, readers, texts, 16)
    for reader, found in zip(readers, scores, strict=True):
        expected = moments[reader].covariance().diagonal() * reader.weight.double().pow(2).sum(0)
        torch.testing.assert_close(found, expected.detach().float())


def test_activation_before_repair_is_the_variance_others_cannot_predict(checkpoints, splits):
    encoder, texts = models.load(checkpoints["bert"]), splits.calibration.texts
    found = ffn_scores(encoder, "activation", texts, repair=True)[0]
    reader = encoder.stack.layers()[0].ffn_out
    c = collect(encoder, [reader], texts, 16)[reader].covariance()
    c = c + 0.01 * c.diagonal().mean() * torch.eye(64)
    norms = reader.weight.detach().double().pow(2).sum(0)
    for channel in (0, 17, 63):  # Schur complement: variance less what regression on the others explains
        others = [i for i in range(64) if i != channel]
        explained = c[channel, others] @ torch.linalg.solve(c[others][:, others], c[others, channel])
        expected = (c[channel, channel] - explained) * norms[channel]
        assert found[channel].item() == pytest.approx(expected.item(), rel=1e-4)


def test_taylor_is_the_coupled_weight_times_gradient(checkpoints, splits):
    encoder, texts = models.load(checkpoints["bert"]), splits.calibration.texts[:16]
    structured._prepare(encoder, config("taylor"), [], texts)
    layer = encoder.stack.layers()[0]
    parts = layer.ffn_in.weight, layer.ffn_out.weight
    assert all(part.grad.abs().sum() > 0 for part in parts)
    coupled = (parts[0] * parts[0].grad).abs().sum(1) + (parts[1] * parts[1].grad).abs().sum(0)
    (scores,) = structured._scores(encoder, config("taylor"), [layer.ffn_in], {}, False)
    torch.testing.assert_close(scores / scores.sum(), (coupled / coupled.sum()).detach())


def test_taylor_leaves_nothing_behind(checkpoints, splits):
    encoder, texts = models.load(checkpoints["bert"]), splits.calibration.texts[:16]
    state = torch.random.get_rng_state()
    first = ffn_scores(encoder, "taylor", texts)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not encoder.module.training
    assert not any(module.training for module in encoder.module.modules())
    assert all(parameter.grad is None for parameter in encoder.module.parameters())
    second = ffn_scores(encoder, "taylor", texts)  # gradients of the first would add up
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_taylor_without_gradients_is_an_error(checkpoints):
    encoder = models.load(checkpoints["bert"])
    with pytest.raises(AttributeError):
        structured._scores(encoder, config("taylor"), [encoder.stack.layers()[0].ffn_in], {}, False)


def test_activation_of_a_group_nobody_observed(checkpoints):
    encoder = models.load(checkpoints["bert"])
    with pytest.raises(LookupError):
        structured._scores(encoder, config("activation"), [encoder.stack.layers()[0].ffn_in], {}, False)


def test_importances_speak_torch_pruning_s_protocol(checkpoints, splits):
    encoder = models.load(checkpoints["bert"])
    graph = structured._dependencies(encoder)
    layer = encoder.stack.layers()[0]
    group = graph.get_pruning_group(layer.ffn_in, tp.prune_linear_out_channels, idxs=list(range(64)))
    moments = collect(encoder, [layer.ffn_out], splits.calibration.texts[:8], 8)
    for kind in (Importance.magnitude, Importance.activation):
        scores = structured.importance(kind, moments, False, 0.01)(group)
        assert scores.shape == (64,)
        assert scores.dtype == torch.float32
