"""Distillation of an encoder with a head: what it is judged by, and how labels count."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from compress.config.recover import Distill, Precision
from compress.data.record import Record
from compress.errors import ConfigError, DataError
from compress.tasks.text import training
from compress.tasks.text.head_training import HeadDistillation, class_weights
from compress.tasks.text_classification.model import TextClassifier
from tests.heads import CLASSES, WORDS


@pytest.fixture(scope="module")
def model(headed_checkpoints):
    return TextClassifier.open(headed_checkpoints["text_classification"], attention="eager")


def examples(count):
    return [Record(text=" ".join(WORDS[: i + 1]), labels=(float(i % len(CLASSES)),)) for i in range(count)]


def trained(model, select, weights=None, **config):
    chosen = Distill(precision=Precision.float32, max_length=64, **config)
    return HeadDistillation(chosen, model, model, examples(4), select, weights)


def test_so_many_rows_of_select_are_looked_at_evenly_spread(model, monkeypatch):
    """Text i has i + 1 words and the marks around them."""
    monkeypatch.setattr(training, "SELECT_ROWS", 4)
    rows = [row for part, _ in trained(model, examples(12)).select for row in part]
    assert [len(row) - 2 for row in rows] == [1, 4, 7, 10]
    rows = [row for part, _ in trained(model, examples(3)).select for row in part]
    assert [len(row) - 2 for row in rows] == [1, 2, 3]


def test_classes_count_as_much_as_they_are_weighed(model):
    weights = torch.arange(1.0, len(CLASSES) + 1)
    trainer = trained(model, examples(4), weights, label_weight=0.5, balanced=True)
    rows = model.processor.encode(examples(4))
    answers = torch.randn(4, len(CLASSES), generator=torch.Generator().manual_seed(0))
    truth = torch.tensor([i % len(CLASSES) for i in range(4)])
    of_each = nn.functional.cross_entropy(answers, truth, reduction="none")
    assert trainer.label_error(answers, rows).item() == pytest.approx(
        0.5 * float((of_each * weights[truth]).mean())
    )
    plain = trained(model, examples(4), label_weight=0.5)
    assert plain.label_error(answers, rows).item() == pytest.approx(0.5 * float(of_each.mean()))


@pytest.mark.parametrize("data", [SimpleNamespace(names=()), SimpleNamespace()])
def test_examples_without_classes_cannot_be_balanced(data):
    with pytest.raises(DataError, match="these examples have none"):
        class_weights(data)


def test_weights_of_a_loss_without_weight_are_refused():
    with pytest.raises(ConfigError, match="label_weight=0"):
        Distill(balanced=True)
