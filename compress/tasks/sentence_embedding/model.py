"""BERT-like sentence encoders: tokens -> one vector a text.

Pooling and normalisation are part of the module, so that they are part of the exported graph and
what ships is the whole encoder.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from torch import Tensor, nn

from compress.errors import ModelError
from compress.models.architectures import TEXT_ENCODERS
from compress.models.kind import check_kind
from compress.models.tokenizer import lower_first, pads_left
from compress.tasks.sentence_embedding.card import card_facts
from compress.tasks.sentence_embedding.dense import open_dense
from compress.tasks.sentence_embedding.pooling import pooled
from compress.tasks.sentence_embedding.processor import TextProcessor, open_processor
from compress.tasks.sentence_embedding.settings import Settings, limit_tokens, read_settings
from compress.tasks.text.card import CHECK_TEXTS
from compress.tasks.text.model import TextModel, places

OUTPUT = "sentence_embedding"


class SentenceEncoder(nn.Module):
    """input_ids, attention_mask[, token_type_ids] (batch, tokens) -> (batch, dimensions)."""

    def __init__(self, backbone: nn.Module, settings: Settings, folder: Path) -> None:
        """`folder`: of the tokenizer and of the layers behind the pooling; raises ModelError for damaged
        ones."""
        super().__init__()
        self.backbone = backbone
        self.settings = settings
        self.left = pads_left(folder)
        self.config = cast(Any, backbone.config)
        self.dense = nn.Sequential()
        self.width = int(self.config.hidden_size) * len(settings.poolings)  # numbers of an embedding
        for place, activation in settings.dense:
            layer = open_dense(folder / place, activation, self.width)
            self.dense.append(layer)
            self.width = len(layer.get_parameter("0.weight"))
        if (first := settings.dimensions) and first > self.width:
            raise ModelError(
                "the encoder gives fewer dimensions", found=first, allowed=f"at most {self.width}"
            )
        self.width = settings.dimensions or self.width

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        extra = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        extra |= places(self.backbone, input_ids)
        states = self.backbone(input_ids=input_ids, attention_mask=attention_mask, **extra)
        return {OUTPUT: self.pool(states.last_hidden_state, attention_mask)}

    def pool(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, tokens, hidden) -> (batch, dimensions); padding does not count."""
        ways = [pooled(way, tokens, attention_mask, self.left) for way in self.settings.poolings]
        vector: Tensor = self.dense(ways[0] if len(ways) == 1 else torch.cat(ways, -1))
        if self.settings.normalize:
            vector = nn.functional.normalize(vector, dim=-1)
        return vector[:, : self.settings.dimensions] if self.settings.dimensions else vector


class Encoder(TextModel):
    """A sentence encoder with its tokenizer, as opened from a checkpoint folder."""

    task = "sentence_embedding"
    output_names = (OUTPUT,)
    auto = transformers.AutoModel
    needless = "pooler"
    check_texts = CHECK_TEXTS
    module: SentenceEncoder

    @classmethod
    def check_described(cls, described: Mapping[str, Any]) -> None:
        check_kind(described, TEXT_ENCODERS, "a sentence encoder")

    @classmethod
    def check_settings(cls, folder: Path) -> None:
        read_settings(folder)

    @classmethod
    def wrap(cls, stock: Any, folder: Path) -> SentenceEncoder:
        return SentenceEncoder(stock, read_settings(folder), folder)

    @property
    def weights(self) -> Any:
        return self.module.backbone

    def save_settings(self, folder: Path) -> TextProcessor:
        if self.module.settings.lowercase:
            lower_first(folder)
        processor = open_processor(folder)
        limit_tokens(folder, processor.max_length)
        return processor

    def card(self, processor: TextProcessor) -> dict[str, Any]:
        return card_facts(processor, self.module.width)

    def parameters(self) -> int:
        """What the graph holds: a pooler that BERT brings along is not part of it."""
        return sum(p.numel() for name, p in self.module.named_parameters() if "pooler." not in name)

    def head_macs(self, tokens: int) -> int:
        return sum(each.numel() for each in self.module.dense.parameters() if each.ndim == 2)

    @cached_property
    def processor(self) -> TextProcessor:
        return open_processor(self.folder)

    def run(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Embeddings (batch, dimensions)."""
        return cast(Tensor, self.module(**inputs)[OUTPUT])

    def stock_view(self, inputs: Mapping[str, Tensor]) -> tuple[str, str, Tensor]:
        """Stock transformers knows the backbone, without pooling."""
        states = self.module.backbone(**inputs).last_hidden_state
        return "AutoModel", "last_hidden_state", states


open_model = Encoder.open
