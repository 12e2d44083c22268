"""Moments against numpy over the tokens that are not padding."""

import numpy as np
import pytest
import torch

from compress import tasks
from compress.models.moments import Moments
from tests.prune.cuts import images_of, moments_of, texts_of


def tokens_into(encoder, modules, texts):
    """What flows into each module, one text at a time, so that there is no padding."""
    seen = {module: [] for module in modules}
    handles = [
        m.register_forward_pre_hook(lambda module, args: seen[module].append(args[0][0].double().numpy()))
        for m in modules
    ]
    with torch.no_grad():
        for text in texts:
            encoder.module(**encoder.tokenize([text]))
    for handle in handles:
        handle.remove()
    return {module: np.concatenate(rows) for module, rows in seen.items()}


@pytest.mark.parametrize("name", ["bert", "distilbert", "mpnet"])
def test_equal_numpy_over_real_tokens_at_any_batch_size(name, checkpoints, splits):
    encoder, texts = tasks.load(checkpoints[name]), splits.calibration.texts[:20]
    modules = [
        part
        for layer in encoder.stack.layers()
        for part in (layer.ffn_out, layer.attention_output, layer.query)
    ]
    raw = tokens_into(encoder, modules, texts)
    for batch_size in (1, 7, 64):
        moments = moments_of(texts_of(encoder, texts, batch_size), modules)
        for module, x in raw.items():
            assert moments[module].count == len(x)
            np.testing.assert_allclose(moments[module].mean(), x.mean(0), atol=1e-5)
            np.testing.assert_allclose(moments[module].covariance(), np.cov(x.T, bias=True), atol=1e-5)


def test_of_images_every_token_is_real(image_checkpoints, image_splits):
    model, split = tasks.load(image_checkpoints["vit"]), image_splits.calibration
    module, seen = model.stack.layers()[0].ffn_out, []
    handle = module.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().double().numpy()))
    with torch.no_grad():
        model.run(model.inputs(split.images))
    handle.remove()
    x = seen[0].reshape(-1, 32)
    moments = moments_of(images_of(model, split, 7), [module])[module]
    assert moments.count == len(x) == 5 * len(split.images)
    np.testing.assert_allclose(moments.mean(), x.mean(0), atol=1e-5)
    np.testing.assert_allclose(moments.covariance(), np.cov(x.T, bias=True), atol=1e-5)


def test_no_hook_and_no_gradient_stays(checkpoints, splits):
    encoder = tasks.load(checkpoints["bert"])
    module = encoder.stack.layers()[0].ffn_out
    moments_of(texts_of(encoder, splits.calibration.texts[:4], 2), [module])
    assert not module._forward_pre_hooks
    assert all(parameter.grad is None for parameter in encoder.module.parameters())


def test_hooks_go_when_the_model_fails(checkpoints):
    encoder = tasks.load(checkpoints["bert"])
    module = encoder.stack.layers()[0].ffn_out
    with pytest.raises(AttributeError):
        moments_of(texts_of(encoder, [3], 2), [module])
    assert not module._forward_pre_hooks


def test_a_channel_with_little_spread_around_a_large_mean():
    x = 100 + torch.randn(5000, 3, generator=torch.Generator().manual_seed(0)) * 0.1
    moments = Moments(3)
    for part in x.split(500):
        moments.add(part)
    np.testing.assert_allclose(moments.covariance().diagonal(), x.double().var(0, correction=0), rtol=1e-3)


def test_without_a_shift_they_are_plain_sums():
    x = 3 + torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    for shifted in (True, False):
        moments = Moments(3, shifted)
        for part in x.split(100):
            moments.add(part)
        exact = x.double()
        np.testing.assert_allclose(moments.second(), exact.T @ exact / 500, rtol=1e-6)
        np.testing.assert_allclose(moments.mean(), exact.mean(0), rtol=1e-6)
        np.testing.assert_allclose(moments.covariance(), np.cov(exact.T, bias=True), atol=1e-4)
