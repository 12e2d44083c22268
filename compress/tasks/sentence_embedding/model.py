"""BERT-like sentence encoders: tokens -> one vector a text.

Pooling and normalisation are part of the module, so that they are part of the exported graph and
what ships is the whole encoder.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from torch import Tensor, nn

from compress.models.architectures import TEXT_ENCODERS
from compress.models.checkpoint import (
    Facts,
    check_weights,
    copy_companions,
    read_config,
    write_facts,
)
from compress.models.compat import write_for_both
from compress.models.kind import check_kind
from compress.models.layers import Stack
from compress.models.limits import windows
from compress.models.loading import open_stock
from compress.models.padding import cut_padding, save_padded
from compress.models.summary import Summary, write_summary
from compress.models.tokenizer import complete, leave_length_alone, lower_first, pads_left
from compress.tasks.base import AtLimits, Opened, tensors
from compress.tasks.sentence_embedding.card import CHECK_TEXTS, card_facts
from compress.tasks.sentence_embedding.pooling import pooled
from compress.tasks.sentence_embedding.processor import TextProcessor, long_texts, open_processor
from compress.tasks.sentence_embedding.settings import Settings, limit_tokens, read_settings

OUTPUT = "sentence_embedding"
REFERENCE_TOKENS = 128  # multiply-accumulates are counted for one text of this length
_LONGEST = 2048  # tokens of a text that a graph is tried on: attention grows with their square
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


class SentenceEncoder(nn.Module):
    """input_ids, attention_mask[, token_type_ids] (batch, tokens) -> (batch, dimensions)."""

    def __init__(self, backbone: nn.Module, settings: Settings, left: bool) -> None:
        """`left`: texts are padded at their beginning."""
        super().__init__()
        self.backbone = backbone
        self.settings = settings
        self.left = left
        self.config = cast(Any, backbone.config)

    @property
    def width(self) -> int:
        """Numbers of an embedding."""
        joined = int(self.config.hidden_size) * len(self.settings.poolings)
        return min(joined, self.settings.dimensions or joined)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        extra = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        if hasattr(self.backbone, "rotary_emb"):  # RotaryEmbedding of ONNX wants the angles of every text
            extra["position_ids"] = torch.arange(input_ids.shape[1]).expand_as(input_ids)
        states = self.backbone(input_ids=input_ids, attention_mask=attention_mask, **extra)
        return {OUTPUT: self.pool(states.last_hidden_state, attention_mask)}

    def pool(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, tokens, hidden) -> (batch, dimensions); padding does not count."""
        ways = [pooled(way, tokens, attention_mask, self.left) for way in self.settings.poolings]
        vector = ways[0] if len(ways) == 1 else torch.cat(ways, -1)
        if self.settings.normalize:
            vector = nn.functional.normalize(vector, dim=-1)
        return vector[:, : self.settings.dimensions] if self.settings.dimensions else vector


class Encoder(Opened):
    """A sentence encoder with its tokenizer, as opened from a checkpoint folder."""

    task = "sentence_embedding"
    output_names = (OUTPUT,)
    open_axes = ("batch_size", "sequence_length")

    def __init__(self, module: SentenceEncoder, folder: Path, facts: Facts) -> None:
        self.module = module
        self.folder = folder
        self.facts = facts
        self.architecture = TEXT_ENCODERS[module.config.model_type]

    @classmethod
    def load(cls, folder: Path, facts: Facts, attention: str = "sdpa") -> "Encoder":
        described = read_config(folder)
        check_described(described)
        settings = read_settings(folder)
        check_weights(folder)
        architecture = TEXT_ENCODERS[described["model_type"]]
        if not architecture.fused_attention:
            attention = "eager"
        # A pooler nothing reads; heads of what it was trained for are no layers of the backbone.
        others = rf"^(?!.*\b{re.escape(architecture.layers)}\.)"
        backbone = open_stock(transformers.AutoModel, folder, attention, "pooler", others)
        cut_padding(Stack(backbone, architecture), vars(backbone.config))
        module = SentenceEncoder(backbone, settings, pads_left(folder))
        return cls(module.eval(), folder, facts)

    def save(self, folder: Path, facts: Facts) -> None:
        """Write a checkpoint that stock transformers loads; layers of different widths are padded."""
        save_padded(self.module.backbone, self.stack, folder)
        copy_companions(self.folder, folder)
        complete(folder)
        leave_length_alone(folder)
        if self.module.settings.lowercase:
            lower_first(folder)
        write_for_both(folder)
        write_facts(facts, folder)
        processor = open_processor(folder)
        limit_tokens(folder, processor.max_length)
        summary = Summary(
            parameters=self.parameters(),
            macs=self.macs(REFERENCE_TOKENS),
            widths=self.widths(),
            layer_names=self.stack.layer_names(facts.kept_layers),
            keeps_checkpoint=True,
            card=card_facts(processor, self.module.width),
        )
        write_summary(summary, processor.tokenize(CHECK_TEXTS), folder)

    # -- structure

    @property
    def stack(self) -> Stack:
        return Stack(self.module.backbone, self.architecture)

    def widths(self) -> dict[str, tuple[int, ...]]:
        """Kind -> width of each layer."""
        return self.stack.widths()

    def parameters(self) -> int:
        """What the graph holds: a pooler that BERT brings along is not part of it."""
        return sum(p.numel() for name, p in self.module.named_parameters() if "pooler." not in name)

    def macs(self, tokens: int) -> int:
        """Multiply-accumulates for one text: products with weights and the two of attention."""
        total = 0
        for layer in self.stack.layers():
            total += tokens * sum(linear.weight.numel() for linear in layer.linears())
            total += 2 * tokens * tokens * layer.attention_output.in_features
        return total

    # -- inputs

    @cached_property
    def processor(self) -> TextProcessor:
        return open_processor(self.folder)

    def tokenize(self, texts: Sequence[str], max_length: int | None = None) -> dict[str, Tensor]:
        """Padded to the longest text: name -> (batch, tokens) int64."""
        return tensors(self.processor.tokenize(texts, max_length))

    def at_limits(self, examples: Sequence[str]) -> AtLimits:
        """A text as long as the model takes, or `_LONGEST`, and a short one that is padded to its length."""
        last = self.processor.max_length
        tokens = min(last, _LONGEST)
        texts = [*long_texts(examples, 1, tokens), min(examples, key=len)]
        reached = {window: window < tokens for window in windows(self.module.config.to_dict())}
        return [self.tokenize(texts, tokens)], {**reached, last: tokens == last}

    def example(self) -> dict[str, Tensor]:
        """Two texts, for tracing."""
        return self.tokenize(["one short text", "and a second one"])

    def run(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Embeddings (batch, dimensions)."""
        return cast(Tensor, self.module(**inputs)[OUTPUT])

    def stock_view(self, inputs: Mapping[str, Tensor]) -> tuple[str, str, Tensor]:
        """Stock transformers knows the backbone, without pooling."""
        states = self.module.backbone(**inputs).last_hidden_state
        return "AutoModel", "last_hidden_state", states


open_model = Encoder.open


def check_described(described: Mapping[str, Any]) -> None:
    """Raise ModelError for a config.json that is no sentence encoder's."""
    check_kind(described, TEXT_ENCODERS, "a sentence encoder")
