"""Classifiers of texts and of pairs of texts: tokens -> logits."""

from pathlib import Path
from typing import Any

import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from compress.tasks.text.card import CHECK_TEXTS
from compress.tasks.text.heads import HeadedModel
from compress.tasks.text.kind import Kind
from compress.tasks.text_classification.card import card_facts
from compress.tasks.text_classification.options import TextClassifierModel
from compress.tasks.text_classification.processor import ClassifierProcessor, kind_of, open_processor


class TextClassifier(HeadedModel):
    task = TextClassifierModel.task
    what = TextClassifierModel.what
    auto = transformers.AutoModelForSequenceClassification
    known = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    check_texts = CHECK_TEXTS

    @classmethod
    def processor_of(cls, folder: Path) -> ClassifierProcessor:
        return open_processor(folder)

    @property
    def kind(self) -> Kind:
        return kind_of(self.config.to_dict())

    def card(self, processor: Any) -> dict[str, Any]:
        return card_facts(processor, self.kind, self.config.id2label)


open_model = TextClassifier.open
