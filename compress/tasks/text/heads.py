"""Encoders with a head of transformers: tokens -> logits, of a text or of each token."""

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from math import nan
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from compress.errors import ModelError
from compress.models.architectures import LANGUAGE_MODELS, TEXT_ENCODERS
from compress.models.checkpoint import read_config, read_json
from compress.models.kind import check_kind
from compress.models.loading import from_folder
from compress.models.published_task import other_task
from compress.models.tokenizer import Tokens
from compress.tasks.text import losses
from compress.tasks.text.kind import UNKNOWN, Kind
from compress.tasks.text.model import TextModel, places
from compress.tasks.text.processor import TextProcessor


class Head(nn.Module):
    """input_ids, attention_mask[, token_type_ids] (batch, tokens) -> what `names` names of the outputs."""

    def __init__(self, whole: Any, names: Sequence[str]) -> None:
        super().__init__()
        self.whole = whole
        self.names = tuple(names)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        extra = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        extra |= places(self.whole.base_model, input_ids)
        given = self.whole(input_ids=input_ids, attention_mask=attention_mask, **extra)
        return {name: getattr(given, name) for name in self.names}


class HeadedModel(TextModel):
    """What a task's model adds: which class of transformers it is, and what its answers are."""

    output_names: tuple[str, ...] = ("logits",)
    what: ClassVar[str]  # an indefinite article and what is looked for
    known: ClassVar[Mapping[str, str]]  # type of transformers' models -> the class with the head
    per_token = False  # whether the head reads each token
    tags_tokens = False  # whether each token has a label
    module: Head

    @classmethod
    def check_described(cls, described: Mapping[str, Any]) -> None:
        """Raise ModelError for a config.json of a type without such a head, or of a model with another."""
        types = [name for name in TEXT_ENCODERS if name in cls.known and name not in LANGUAGE_MODELS]
        check_kind(described, types, cls.what)
        wanted = cls.known[described["model_type"]]
        if (found := described.get("architectures")) and wanted not in found:
            raise ModelError(
                f"the model is not {cls.what}: it has another head",
                found=", ".join(map(str, found)),
                allowed=wanted,
                next=other_task(described, cls.what) or "take a model that was trained for it",
            )

    @classmethod
    def wrap(cls, stock: Any, folder: Path) -> Head:
        return Head(stock, cls.output_names)

    @classmethod
    @abstractmethod
    def processor_of(cls, folder: Path) -> TextProcessor: ...

    @property
    def weights(self) -> Any:
        return self.module.whole

    @property
    def kind(self) -> Kind:
        return Kind.classes

    @cached_property
    def processor(self) -> Any:
        return self.processor_of(self.folder)

    def save_settings(self, folder: Path) -> TextProcessor:
        name_classes(folder, self.config)
        name_inputs(folder)
        return self.processor_of(folder)

    def head_macs(self, tokens: int) -> int:
        within = {id(each) for each in self.stack.blocks.modules()}
        products = [each for each in self.module.modules() if isinstance(each, nn.Linear)]
        numbers = sum(each.weight.numel() for each in products if id(each) not in within)
        return numbers * (tokens if self.per_token else 1)

    def run(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """What is compared of its answers, the last axis being what is answered: (batch, ..., answers)."""
        return self.answers(self.module(**inputs), inputs["attention_mask"])

    def answers(self, given: Mapping[str, Tensor], mask: Tensor) -> Tensor:
        """The same of what the module gave, with zeros for padding."""
        logits = given["logits"]
        return logits * mask.unsqueeze(-1).to(logits.dtype) if self.per_token else logits

    def stock_view(self, inputs: Mapping[str, Tensor]) -> tuple[str, str, Tensor]:
        name = self.output_names[0]
        return self.auto.__name__, name, self.module(**inputs)[name]

    # -- what training and pruning go by

    def labels(self, rows: Sequence[Tokens]) -> Tensor | None:
        """Of texts that were read together; None where none has any."""
        if not any(row.label for row in rows):
            return None
        missing = UNKNOWN if self.kind is Kind.classes else nan
        size = max(len(row.label) for row in rows)
        labels = [row.label or [missing] * (len(row) if self.tags_tokens else size) for row in rows]
        filled = self.processor.tokenizer.filled(labels, missing, np.float32)
        return torch.from_numpy(filled).to(torch.int64 if self.kind is Kind.classes else torch.float32)

    def label_error(self, answers: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        """Mean over all that `labels` knows."""
        return losses.label_error(self.kind, answers, labels, weights)

    def distance(self, answers: Tensor, dense: Tensor) -> Tensor:
        return losses.distance(self.kind, answers, dense)


def name_classes(folder: Path, config: Any) -> None:
    """Write the names of the outputs into config.json: transformers leaves out LABEL_0 and LABEL_1, which
    others do not guess."""
    path = folder / "config.json"
    names = {str(number): name for number, name in sorted(config.id2label.items())}
    numbers = {name: int(number) for number, name in names.items()}
    content = {**read_config(folder), "id2label": names, "label2id": numbers}
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def name_inputs(folder: Path) -> None:
    """Write into tokenizer_config.json what transformers gives a model of this tokenizer: its class, no file,
    says whether the second of two texts is told apart."""
    path = folder / "tokenizer_config.json"
    stock = from_folder(transformers.AutoTokenizer, folder)
    content = {**read_json(path), "model_input_names": list(stock.model_input_names)}
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False), "utf-8")
