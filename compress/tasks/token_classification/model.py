"""Taggers: tokens -> logits of each."""

from pathlib import Path
from typing import Any

import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES

from compress.tasks.text.card import CHECK_TEXTS
from compress.tasks.text.heads import HeadedModel
from compress.tasks.token_classification.card import card_facts
from compress.tasks.token_classification.options import TokenClassifierModel
from compress.tasks.token_classification.processor import TaggingProcessor, open_processor


class TokenClassifier(HeadedModel):
    task = TokenClassifierModel.task
    what = TokenClassifierModel.what
    auto = transformers.AutoModelForTokenClassification
    known = MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES
    check_texts = CHECK_TEXTS
    per_token = tags_tokens = True

    @classmethod
    def processor_of(cls, folder: Path) -> TaggingProcessor:
        return open_processor(folder)

    def card(self, processor: Any) -> dict[str, Any]:
        return card_facts(processor, self.config.id2label)


open_model = TokenClassifier.open
