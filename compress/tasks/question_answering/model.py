"""Extractive question answering: tokens of a question and a context -> logits of the first and last token."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers.models.auto.modeling_auto import MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES

from compress.tasks.question_answering.card import CHECK_QUESTION, card_facts
from compress.tasks.question_answering.options import QuestionAnswererModel
from compress.tasks.question_answering.processor import AnswerProcessor, open_processor
from compress.tasks.text.heads import HeadedModel

_IMPOSSIBLE = -1e4  # as a logit


class QuestionAnswerer(HeadedModel):
    """What is answered is a place: `run` gives (batch, 2, tokens), of the first token and of the last."""

    task = QuestionAnswererModel.task
    what = QuestionAnswererModel.what
    auto = transformers.AutoModelForQuestionAnswering
    known = MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES
    output_names = ("start_logits", "end_logits")
    check_texts = CHECK_QUESTION
    per_token = True

    @classmethod
    def processor_of(cls, folder: Path) -> AnswerProcessor:
        return open_processor(folder)

    def answers(self, given: Mapping[str, Tensor], mask: Tensor) -> Tensor:
        logits = torch.stack([given[name] for name in self.output_names], 1)
        return logits.masked_fill(mask.unsqueeze(1) == 0, _IMPOSSIBLE)

    def card(self, processor: Any) -> dict[str, Any]:
        return card_facts(processor)


open_model = QuestionAnswerer.open
