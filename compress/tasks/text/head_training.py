"""Distillation of an encoder with a head: its answers against the dense model's, and against labels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from compress.config.recover import Distill
from compress.data import load_splits
from compress.errors import DataError
from compress.models.tokenizer import Tokens
from compress.tasks.text.heads import HeadedModel
from compress.tasks.text.model import TextModel
from compress.tasks.text.processor import Examples
from compress.tasks.text.training import TextDistillation


def distill_headed(
    model: type[HeadedModel],
    config: Distill,
    student_folder: Path,
    teacher_folder: Path,
    splits: Path,
    out: Path,
    scratch: Path,
) -> None:
    """Write the best student seen on the select split, and note the curve.

    Raises GateError when the loss is not finite.
    """
    data = load_splits(splits)
    # The backward pass of the fused attention takes half of a step on a CPU; plain products do not.
    student, teacher = (model.open(folder, attention="eager") for folder in (student_folder, teacher_folder))
    weights = class_weights(data) if config.balanced else None
    trainer = HeadDistillation(config, student, teacher, data.train.examples, data.select.examples, weights)
    history = trainer.run(scratch)
    trainer.write(student, out, select_loss=history.select)


def class_weights(data: Any) -> Tensor:
    """(classes): by which every class of the train split counts the same; raises DataError where the examples
    have no classes."""
    if not getattr(data, "names", ()):
        raise DataError(
            "balanced weighs classes, and these examples have none",
            found="plain text, passages, answers or values",
            next="leave balanced out",
        )
    return torch.tensor(data.class_weights())


class HeadDistillation(TextDistillation):
    score_name, higher_is_better = "loss", False  # the same as on train, without hidden states

    def __init__(
        self,
        config: Distill,
        student: HeadedModel,
        teacher: HeadedModel,
        train: Examples,
        select: Examples,
        weights: Tensor | None = None,
    ) -> None:
        """`weights`: of the classes, see `losses.label_error`."""
        super().__init__(config, student, teacher, train, select)
        self.class_weights = None if weights is None else weights.to(self.device)

    def net(self, model: TextModel) -> nn.Module:
        return model.module

    def answers(self, model: TextModel, given: Any, inputs: dict[str, Tensor]) -> Tensor:
        logits = {name: each.float() for name, each in given.items()}
        return cast(HeadedModel, model).answers(logits, inputs["attention_mask"])

    def error(self, answers: Tensor, wanted: Tensor) -> Tensor:
        return cast(HeadedModel, self.student).distance(answers, wanted).mean()

    def label_error(self, answers: Tensor, rows: Sequence[Tokens]) -> Tensor | None:
        student = cast(HeadedModel, self.student)
        if not self.config.label_weight or (labels := student.labels(rows)) is None:
            return None
        error = student.label_error(answers, labels.to(self.device), self.class_weights)
        return self.config.label_weight * error

    def score(self) -> float:
        total = 0.0
        for (rows, inputs), wanted in zip(self.select, self.select_answers, strict=True):
            total += len(rows) * float(self._loss(self._study(inputs).answers, wanted, rows))
        return total / sum(len(rows) for rows, _ in self.select)
