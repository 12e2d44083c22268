"""Gradients summed over examples, against autograd of all of them at once."""

import torch

from compress import tasks
from compress.tasks.calibration import accumulate
from compress.tasks.sentence_embedding.calibration import contrastive_loss
from tests.prune.cuts import images_of


def test_gradients_of_the_labels(image_checkpoints, image_splits):
    model, split = tasks.load(image_checkpoints["vit"]), image_splits.calibration
    accumulate(model.module, images_of(model, split, 7).losses())
    logits = model.run(model.inputs(split.images))
    chosen = logits.log_softmax(1)[torch.arange(len(split.labels)), torch.from_numpy(split.labels)]
    weights = [layer.ffn_in.weight for layer in model.stack.layers()]
    for weight, expected in zip(weights, torch.autograd.grad(-chosen.sum(), weights), strict=True):
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(weight.grad, expected, atol=1e-4, rtol=1e-4)


def test_gradients_of_before_do_not_add_up(image_checkpoints, image_splits):
    model, split = tasks.load(image_checkpoints["vit"]), image_splits.calibration
    weight, found = model.stack.layers()[0].query.weight, []
    for _ in range(2):
        accumulate(model.module, images_of(model, split, 30).losses())
        found.append(weight.grad.clone())
    assert torch.equal(*found)


def test_contrastive_loss_by_hand():
    first = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    second = torch.tensor([[3.0, 0.0], [1.0, 1.0]])
    half = 0.5**0.5
    rows = torch.tensor([[1.0, half], [0.0, half]]) / 0.05
    expected = -(rows.log_softmax(1)[0, 0] + rows.log_softmax(1)[1, 1]) / 2
    torch.testing.assert_close(contrastive_loss(first, second), expected)
