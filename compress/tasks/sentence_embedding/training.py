"""Distillation of a sentence encoder: the cosine of its embeddings to the dense model's."""

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from compress.config.recover import Distill
from compress.data import load_splits
from compress.tasks.sentence_embedding.model import Encoder
from compress.tasks.text.model import TextModel
from compress.tasks.text.training import TextDistillation

COSINE_WEIGHT = 10.0  # of the embeddings' loss; it is about a tenth of the hidden states'


def distill(
    config: Distill, student_folder: Path, teacher_folder: Path, splits: Path, out: Path, scratch: Path
) -> None:
    """Write the best student seen on the select split, and note the curve.

    Raises GateError when the loss is not finite.
    """
    data = load_splits(splits)
    # The backward pass of the fused attention takes half of a step on a CPU; plain products do not.
    student, teacher = (
        Encoder.open(folder, attention="eager") for folder in (student_folder, teacher_folder)
    )
    trainer = EncoderDistillation(config, student, teacher, data.train.examples, data.select.examples)
    history = trainer.run(scratch)
    losses = [COSINE_WEIGHT * (1 - cosine) for cosine in history.select]
    trainer.write(student, out, select_cosine=history.select, select_loss=losses)


class EncoderDistillation(TextDistillation):
    score_name, higher_is_better = "cosine", True  # of the student's embeddings to the teacher's, mean
    keeps_answers = True
    unread = "pooler."

    def net(self, model: TextModel) -> nn.Module:
        return cast(nn.Module, model.backbone)

    def answers(self, model: TextModel, given: Any, inputs: dict[str, Tensor]) -> Tensor:
        """Embeddings; pooled in float32."""
        states = given.last_hidden_state.float()
        return cast(Encoder, model).module.pool(states, inputs["attention_mask"])

    def error(self, answers: Tensor, wanted: Tensor) -> Tensor:
        return COSINE_WEIGHT * (1 - cosine_similarity(answers, wanted)).mean()

    def score(self) -> float:
        cosines = [
            cosine_similarity(self._study(inputs).answers, wanted)
            for (_, inputs), wanted in zip(self.select, self.select_answers, strict=True)
        ]
        return float(torch.cat(cosines).mean())
