"""Rerankers: tokens of a query and a passage -> one logit."""

from pathlib import Path
from typing import Any

import transformers
from torch import Tensor
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from compress.tasks.reranking.card import CHECK_PAIRS, card_facts
from compress.tasks.reranking.options import RerankerModel
from compress.tasks.reranking.processor import PairProcessor, open_processor
from compress.tasks.reranking.settings import read_settings
from compress.tasks.text import losses
from compress.tasks.text.heads import HeadedModel
from compress.tasks.text.kind import Kind


class Reranker(HeadedModel):
    task = RerankerModel.task
    what = RerankerModel.what
    auto = transformers.AutoModelForSequenceClassification
    known = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    check_texts = CHECK_PAIRS

    @classmethod
    def check_settings(cls, folder: Path) -> None:
        read_settings(folder)

    @classmethod
    def processor_of(cls, folder: Path) -> PairProcessor:
        return open_processor(folder)

    @property
    def kind(self) -> Kind:
        """The logit itself is what a smaller model is to give."""
        return Kind.values

    def label_error(self, answers: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        """A gain is the probability of its passage; one above 1 counts as 1."""
        return losses.label_error(Kind.labels, answers, labels.clamp(0, 1), weights)

    def card(self, processor: Any) -> dict[str, Any]:
        return card_facts(processor)


open_model = Reranker.open
