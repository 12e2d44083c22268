"""What computes much goes to the device that is chosen, and what is found out there comes back."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from compress.config.prune import TransformerPrune
from compress.models import device as device_module
from compress.models.device import computing, moved
from compress.models.walk import Walk
from compress.prune.fisher import information
from compress.tasks import load, part
from compress.tasks.calibration import accumulate
from compress.tasks.language_modeling import calibration
from tests.other_device import THERE, Elsewhere, OtherDevice


def test_a_module_computes_there_and_comes_back(monkeypatch):
    monkeypatch.setattr(device_module, "chosen", lambda: THERE)
    module, x = nn.Linear(3, 2), torch.ones(4, 3)
    wanted = module(x)
    with OtherDevice(), computing(module) as device:
        assert device == THERE
        with pytest.raises(AssertionError, match="two devices"):
            module(x)
        given = module(moved({"x": x}, device)["x"])
        assert isinstance(given.detach(), Elsewhere)
        given.sum().backward()
        back = given.detach().cpu()
    assert torch.equal(back, wanted)
    assert module.weight.device.type == "cpu"
    assert torch.equal(module.weight.grad, torch.full((2, 3), 4.0))


@pytest.fixture(params=["sentence_embedding", "image_classification", "language_modeling"])
def opened(request):
    ask = request.getfixturevalue
    checkpoint, splits = {
        "sentence_embedding": lambda: (ask("checkpoints")["bert"], ask("splits_folder")),
        "image_classification": lambda: (ask("image_checkpoints")["vit"], ask("image_splits_folder")),
        "language_modeling": lambda: (ask("language_checkpoints")["llama"], ask("splits_folder")),
    }[request.param]()
    model = load(checkpoint)
    task = part("compress.tasks.*.calibration", checkpoint)
    config = TransformerPrune(batch_size=4, calibration_tokens=256)
    return model, task.open_calibration(model, splits, config)


def found_out(model, data):
    """What pruning asks of a model: moments, gradients, Fisher information, distances."""
    readers = [[layer.ffn_out] for layer in model.stack.layers()]
    fisher = information([layer for of_layer in readers for layer in of_layer], data.losses())
    accumulate(model.module, data.losses())
    gradients = [layer.ffn_out.weight.grad.clone() for layer in model.stack.layers()]
    seen = {}
    for moments in data.moments(readers):
        seen |= {layer: each.second() for layer, each in moments.items()}
    far = data.distances()([0])
    return [*fisher.values(), *gradients, *seen.values(), torch.tensor(list(far.values()))]


def test_what_pruning_asks_of_a_model_is_the_same_there(opened, monkeypatch):
    model, data = opened
    monkeypatch.setattr(calibration, "wants_bfloat16", lambda *_: False)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no such device
    here = found_out(model, data)
    monkeypatch.setattr(device_module, "chosen", lambda: THERE)
    sent = []
    move = nn.Module.to
    monkeypatch.setattr(nn.Module, "to", lambda self, *args: sent.append(args) or move(self, *args))
    with OtherDevice():
        there = found_out(model, data)
    assert (THERE,) in sent
    for ours, theirs in zip(here, there, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-5)


def test_what_quantization_asks_of_a_language_model_is_the_same_there(
    language_checkpoints, splits_folder, monkeypatch
):
    model = load(language_checkpoints["llama"])
    windows = torch.arange(3, 35).view(2, 16)

    def seen():
        walk = Walk(model, windows)
        moments = {one.names: one.moment for one in walk.second_moments(0)}
        walk.advance(0)
        outputs = walk.outputs(1)
        return [*moments.values(), *(each for pair in outputs.values() for each in pair), walk.behind(1)]

    here = seen()
    monkeypatch.setattr(device_module, "chosen", lambda: THERE)
    with OtherDevice():
        there = seen()
    for ours, theirs in zip(here, there, strict=True):
        assert theirs.device.type == "cpu"
        torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-5)
