"""Importances against formulas written out with the weights of one layer, and against exhaustive search."""

from itertools import chain, combinations

import numpy as np
import pytest
import torch

from compress import tasks
from compress.config.prune import TransformerPrune
from compress.errors import ConfigError
from compress.models.moments import Moments
from compress.prune.importance import IMPORTANCES, Columns, importance
from compress.prune.least_squares import refit
from compress.prune.selection import best
from compress.prune.width import columns_of
from compress.tasks.language_modeling.calibration import Windows
from tests.prune.cuts import channel_scores, config, cut_channels, cut_heads, images_of, moments_of, texts_of


def relative(scores):
    return (scores / scores.sum()).detach().float()


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "mpnet"])
def test_magnitude_is_the_coupled_norm(name, checkpoints, splits):
    encoder = tasks.load(checkpoints[name])
    data = texts_of(encoder, splits.calibration.texts[:8])
    for layer, scores in zip(encoder.stack.layers(), channel_scores(data, config("magnitude")), strict=True):
        coupled = layer.ffn_in.weight.pow(2).sum(1) + layer.ffn_out.weight.pow(2).sum(0)
        torch.testing.assert_close(relative(scores), relative(coupled))


@pytest.mark.parametrize("name", ["bert", "mpnet"])
def test_activation_is_variance_times_squared_norm_of_the_reader(name, checkpoints, splits):
    encoder = tasks.load(checkpoints[name])
    data = texts_of(encoder, splits.calibration.texts)
    moments = moments_of(data, [layer.ffn_out for layer in encoder.stack.layers()])
    found = channel_scores(data, config(repair=False))
    for (reader, seen), scores in zip(moments.items(), found, strict=True):
        expected = seen.covariance().diagonal() * reader.weight.detach().double().pow(2).sum(0)
        torch.testing.assert_close(scores, expected)


def test_activation_before_repair_is_the_variance_others_cannot_predict(checkpoints, splits):
    encoder = tasks.load(checkpoints["bert"])
    data = texts_of(encoder, splits.calibration.texts)
    found = channel_scores(data, config())[0]
    reader = encoder.stack.layers()[0].ffn_out
    c = moments_of(data, [reader])[reader].covariance()
    c = c + 0.01 * c.diagonal().mean() * torch.eye(64)
    norms = reader.weight.detach().double().pow(2).sum(0)
    for channel in (0, 17, 63):  # Schur complement: variance less what regression on the others explains
        others = [i for i in range(64) if i != channel]
        explained = c[channel, others] @ torch.linalg.solve(c[others][:, others], c[others, channel])
        expected = (c[channel, channel] - explained) * norms[channel]
        assert found[channel].item() == pytest.approx(expected.item(), rel=1e-4)


def test_taylor_is_the_coupled_weight_times_gradient(checkpoints, splits):
    encoder = tasks.load(checkpoints["bert"])
    data = texts_of(encoder, splits.calibration.texts[:16])
    layer = encoder.stack.layers()[0]
    for loss in data.losses():
        loss.backward()
    parts = layer.ffn_in.weight, layer.ffn_out.weight
    assert all(part.grad.abs().sum() > 0 for part in parts)
    coupled = (parts[0] * parts[0].grad).abs().sum(1) + (parts[1] * parts[1].grad).abs().sum(0)
    torch.testing.assert_close(relative(channel_scores(data, config("taylor"))[0]), relative(coupled))


@pytest.mark.parametrize("name", ["taylor", "fisher"])
def test_gradients_leave_nothing_behind(name, checkpoints, splits):
    encoder = tasks.load(checkpoints["bert"])
    data = texts_of(encoder, splits.calibration.texts[:16])
    state = torch.random.get_rng_state()
    first = channel_scores(data, config(name))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not any(module.training for module in encoder.module.modules())
    assert all(parameter.grad is None for parameter in encoder.module.parameters())
    second = channel_scores(data, config(name))  # gradients of the first would add up
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_fisher_of_images_is_the_squared_slope_of_a_gate(image_checkpoints, image_splits):
    """At each token of an image, by the loss of its label."""
    model, split = tasks.load(image_checkpoints["vit"]), image_splits.calibration
    found = channel_scores(images_of(model, split, 7), config("fisher"))[1]
    reader, tokens = model.stack.layers()[1].ffn_out, 5
    gate = torch.ones(len(split.images), tokens, reader.in_features, requires_grad=True)
    hook = reader.register_forward_pre_hook(lambda _, args: (args[0] * gate,))
    answers = model.run(model.inputs(split.images)).log_softmax(1)
    hook.remove()
    (-answers[torch.arange(len(split.labels)), torch.from_numpy(split.labels)].sum()).backward()
    expected = gate.grad.square().sum((0, 1)) / (len(split.images) * tokens)
    torch.testing.assert_close(found.float(), expected, rtol=1e-3, atol=1e-9)


# ---------------------------------------------------------------- one that this file declares


@pytest.fixture
def last_ones():
    """The importance `last`: the further behind a column stands, the more it matters."""

    @importance("last")
    def last(columns):
        return columns.grouped(torch.arange(columns.weight.shape[1], dtype=torch.float64))

    yield "last"
    del IMPORTANCES["last"]


@pytest.mark.parametrize("name", ["bert", "vit", "llama"])
def test_a_new_importance_works_on_every_transformer(
    name, last_ones, checkpoints, image_checkpoints, language_checkpoints, splits, image_splits
):
    def opened():
        folders = {"bert": checkpoints, "vit": image_checkpoints, "llama": language_checkpoints}
        return tasks.load(folders[name][name])

    dense, model = opened(), opened()
    data = {
        "bert": lambda: texts_of(model, splits.calibration.texts),
        "vit": lambda: images_of(model, image_splits.calibration),
        "llama": lambda: Windows(model, model.windows(splits.calibration.texts, 64)),
    }[name]()
    chosen = config(last_ones, ffn=0.5, heads=0.5, repair=False)
    cut_heads(data, chosen)
    cut_channels(data, chosen)
    for old, new in zip(dense.stack.layers(), model.stack.layers(), strict=True):
        width, heads = old.ffn_width // 2, old.attention_output.in_features // 2
        assert torch.equal(new.ffn_in.weight, old.ffn_in.weight[width:])
        assert torch.equal(new.ffn_out.weight, old.ffn_out.weight[:, width:])
        assert torch.equal(new.query.weight, old.query.weight[heads:])
        assert torch.equal(new.value.weight, old.value.weight[len(old.value.weight) // 2 :])
        assert torch.equal(new.attention_output.weight, old.attention_output.weight[:, heads:])


@pytest.mark.parametrize("name", ["magnitude", "taylor", "activation", "wanda", "fisher", "obs"])
@pytest.mark.parametrize("kind", ["distilbert", "vit", "qwen2"])
def test_every_importance_cuts_every_kind(
    name, kind, checkpoints, image_checkpoints, language_checkpoints, splits, image_splits
):
    """Both kinds of cut in one call, so that they share what is measured."""
    folders = {"distilbert": checkpoints, "vit": image_checkpoints, "qwen2": language_checkpoints}[kind]
    model = tasks.load(folders[kind])
    if kind == "vit":
        data = images_of(model, image_splits.calibration)
    elif kind == "qwen2":
        data = Windows(model, model.windows(splits.calibration.texts, 64))
    else:
        data = texts_of(model, splits.calibration.texts)
    width, heads = model.stack.widths()["ffn"][0], model.stack.widths()["heads"][0]
    chosen = config(name, ffn=0.5, heads=0.5)
    cut_heads(data, chosen)
    cut_channels(data, chosen)
    assert model.stack.widths() == {"ffn": (width // 2,) * 2, "heads": (heads // 2,) * 2}
    assert all(parameter.grad is None for parameter in model.module.parameters())


def test_a_name_declared_twice_is_an_error(last_ones):
    with pytest.raises(ValueError, match="last is already declared"):
        importance("last")(lambda columns: columns.weight)


def test_an_unknown_importance_fails_with_the_configuration():
    with pytest.raises(ConfigError, match=r"importance is unknown\n.*activaton\n.*activation"):
        TransformerPrune(importance="activaton")


# ---------------------------------------------------------------- columns by numpy


def problem(width=6, out=4, tokens=400, seed=0):
    random = np.random.default_rng(seed)
    h = random.normal(size=(tokens, width)) @ random.normal(size=(width, width))
    return h, random.normal(size=(out, width))


def keep(name, w, gram, size, count, fisher=None):
    seen = Moments(len(gram), shifted=False)
    seen.count, seen.product = 1, torch.from_numpy(gram)
    weight = torch.from_numpy(w)
    columns = Columns(
        weight=weight,
        size=size,
        count=count,
        coupled=[(weight.T, None)],
        moments=seen,
        fisher=None if fisher is None else torch.tensor(fisher),
        centred=False,
        repair=True,
        damping=1e-10,
    )
    return columns_of(best(IMPORTANCES[name].score(columns), count), size).tolist()


def left_over(h, w, kept):
    y = h @ w.T
    fitted = np.linalg.lstsq(h[:, kept], y, rcond=None)[0]
    return float(((y - h[:, kept] @ fitted) ** 2).mean())


def test_the_first_to_go_is_the_one_least_squares_can_do_without():
    for seed in range(10):
        h, w = problem(seed=seed)
        errors = {i: left_over(h, w, [j for j in range(6) if j != i]) for i in range(6)}
        first = min(errors, key=errors.__getitem__)
        assert keep("obs", w, h.T @ h / len(h), 1, 5) == [j for j in range(6) if j != first]


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
        nearest = min(combinations(pairs, 2), key=lambda some: left_over(h, w, list(chain(*some))))
        assert keep("obs", w, h.T @ h / len(h), 2, 2) == list(chain(*nearest))


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
