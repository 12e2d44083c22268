"""Rerankers: tokens of a query and a passage -> one logit."""

from collections.abc import Sequence
from math import nan
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from compress.models.tokenizer import Tokens
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

    def labels(self, rows: Sequence[Tokens]) -> Tensor | None:
        """The gain of each pair, and the number of its query: (batch, 2)."""
        gains = super().labels(rows)
        if gains is None:
            return None
        queries = [nan if row.query is None else row.query for row in rows]
        return torch.cat([gains, torch.tensor(queries)[:, None]], 1)

    def label_error(self, answers: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        """Of pairs whose queries nobody knows each has a probability, its gain; one above 1 counts as 1."""
        if labels.shape[1] == 1:
            return losses.label_error(Kind.labels, answers, labels.clamp(0, 1), weights)
        return losses.ranking_error(answers[:, 0], *labels.unbind(1))

    def card(self, processor: Any) -> dict[str, Any]:
        return card_facts(processor)


open_model = Reranker.open
