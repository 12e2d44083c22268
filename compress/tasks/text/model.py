"""Encoders of text with whatever head: how they are opened, cut, counted and saved."""

import re
from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
import transformers
from torch import Tensor, nn

from compress.models.architectures import TEXT_ENCODERS
from compress.models.checkpoint import Facts, check_weights, copy_companions, read_config, write_facts
from compress.models.compat import write_for_both
from compress.models.layers import Stack
from compress.models.limits import windows
from compress.models.loading import open_stock
from compress.models.padding import cut_padding, save_padded
from compress.models.summary import Summary, write_summary
from compress.models.tokenizer import complete, leave_length_alone
from compress.tasks.base import AtLimits, Opened, tensors
from compress.tasks.text.processor import Examples, TextProcessor, letters

REFERENCE_TOKENS = 128  # multiply-accumulates are counted for one text of this length
_LONGEST = 2048  # tokens of a text that a graph is tried on: attention grows with their square
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def places(backbone: nn.Module, input_ids: Tensor) -> dict[str, Tensor]:
    """For a backbone that rotates by positions: RotaryEmbedding of ONNX wants the angles of every text."""
    if not hasattr(backbone, "rotary_emb"):
        return {}
    return {"position_ids": torch.arange(input_ids.shape[1]).expand_as(input_ids)}


class TextModel(Opened):
    """An encoder with its head and its tokenizer, as opened from a checkpoint folder.

    `module` reads input_ids, attention_mask[, token_type_ids] (batch, tokens) and gives a dict by
    `output_names`.
    """

    open_axes = ("batch_size", "sequence_length")
    auto: ClassVar[Any]  # the class of transformers that the weights are of
    needless = ""  # pattern of tensors that a folder may lack
    check_texts: ClassVar[Examples]  # what an artifact is checked with

    def __init__(self, module: nn.Module, folder: Path, facts: Facts) -> None:
        self.module = module
        self.folder = folder
        self.facts = facts
        self.config: Any = self.weights.config
        self.architecture = TEXT_ENCODERS[self.config.model_type]

    @classmethod
    def load(cls, folder: Path, facts: Facts, attention: str = "sdpa") -> Self:
        described = read_config(folder)
        cls.check_described(described)
        cls.check_settings(folder)
        check_weights(folder)
        architecture = TEXT_ENCODERS[described["model_type"]]
        if not architecture.fused_attention:
            attention = "eager"
        # What else it was trained for, a pooler nothing reads: no layers of the backbone.
        others = rf"^(?!.*\b{re.escape(architecture.layers)}\.)"
        stock = open_stock(cls.auto, folder, attention, cls.needless, others)
        stock.config.use_cache = False  # a language model fills one, layer by layer, wherever it computes
        cut_padding(Stack(stock.base_model, architecture), vars(stock.config))
        return cls(cls.wrap(stock, folder).eval(), folder, facts)

    @classmethod
    @abstractmethod
    def check_described(cls, described: Mapping[str, Any]) -> None:
        """Raise ModelError for a config.json of what is no such model."""

    @classmethod
    def check_settings(cls, folder: Path) -> None:
        """Raise ModelError for what other files of the folder say, before weights are read."""

    @classmethod
    @abstractmethod
    def wrap(cls, stock: Any, folder: Path) -> nn.Module:
        """The module around what transformers opened."""

    @property
    @abstractmethod
    def weights(self) -> Any:
        """The model of transformers within the module, whose weights a checkpoint holds."""

    @property
    def backbone(self) -> Any:
        """Of transformers, without its head."""
        return self.weights.base_model

    def save(self, folder: Path, facts: Facts) -> None:
        """Write a checkpoint that stock transformers loads; layers of different widths are padded."""
        save_padded(self.weights, self.stack, folder)
        copy_companions(self.folder, folder)
        complete(folder)
        leave_length_alone(folder)
        processor = self.save_settings(folder)
        write_for_both(folder)
        write_facts(facts, folder)
        summary = Summary(
            parameters=self.parameters(),
            macs=self.macs(REFERENCE_TOKENS),
            widths=self.widths(),
            layer_names=self.stack.layer_names(facts.kept_layers),
            keeps_checkpoint=True,
            card=self.card(processor),
        )
        write_summary(summary, processor.tokenize(self.check_texts), folder)

    @abstractmethod
    def save_settings(self, folder: Path) -> TextProcessor:
        """Write into a checkpoint what is the task's own, and open its processor."""

    @abstractmethod
    def card(self, processor: Any) -> dict[str, Any]:
        """Facts for the model card."""

    # -- structure

    @property
    def stack(self) -> Stack:
        return Stack(self.backbone, self.architecture)

    def widths(self) -> dict[str, tuple[int, ...]]:
        """Kind -> width of each layer."""
        return self.stack.widths()

    def parameters(self) -> int:
        """What the graph holds."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    def macs(self, tokens: int) -> int:
        """Multiply-accumulates for one text: products with weights and the two of attention."""
        total = self.head_macs(tokens)
        for layer in self.stack.layers():
            total += tokens * sum(linear.weight.numel() for linear in layer.linears())
            total += 2 * tokens * tokens * layer.attention_output.in_features
        return total

    def head_macs(self, tokens: int) -> int:
        """Those of products outside of the layers."""
        return 0

    # -- inputs

    @cached_property
    @abstractmethod
    def processor(self) -> Any: ...

    def tokenize(self, texts: Examples, max_length: int | None = None) -> dict[str, Tensor]:
        """Padded to the longest text: name -> (batch, tokens) int64."""
        return tensors(self.processor.tokenize(texts, max_length))

    def at_limits(self, examples: Examples) -> AtLimits:
        """A text as long as the model takes, or `_LONGEST`, and a short one that is padded to its length."""
        processor = self.processor
        last = processor.max_length
        tokens = min(last, _LONGEST)
        short = min(processor.texts(examples), key=letters)
        rows = processor.cut([*processor.long_texts(examples, 1, tokens), short], tokens)
        reached = {window: window < tokens for window in windows(self.config.to_dict())}
        return [tensors(processor.feeds(rows))], {**reached, last: tokens == last}

    def example(self) -> dict[str, Tensor]:
        """Two texts, for tracing."""
        return self.tokenize(["one short text", "and a second one"])

    @abstractmethod
    def stock_view(self, inputs: Mapping[str, Tensor]) -> tuple[str, str, Tensor]:
        """As of `compress.tasks.base.Model`."""

    def outputs(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return cast(dict[str, Tensor], self.module(**inputs))
