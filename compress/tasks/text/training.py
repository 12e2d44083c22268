"""Distillation of an encoder from the dense model, on text with or without labels.

The loss is the distance of the answers plus the error of each layer's hidden states, relative to their
variance (as in TinyBERT, Jiao et al. 2020, without the attention maps), plus the loss of the labels, where
there are some and it has a weight. Embedding tables stay as they are: they are half of the parameters and
were not pruned. There is no dropout: the target is exact, noise would only blur it.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from compress.config.recover import Distill
from compress.errors import DataError
from compress.models.device import chosen, moved
from compress.models.hooks import hooked
from compress.models.tokenizer import Tokens
from compress.tasks.base import tensors
from compress.tasks.text.batching import bucketed, in_batches, spread_queries
from compress.tasks.text.model import TextModel
from compress.tasks.text.processor import Examples
from compress.training.distillation import Distillation
from compress.training.precision import cast_weights, wants_bfloat16

SELECT_BATCH = 64
SELECT_ROWS = 1024  # about, evenly spread: the pairs of some hundred queries are tens of thousands


@dataclass(frozen=True)
class Seen:
    """What a model made of a batch."""

    answers: Tensor  # (batch, ...) float32
    hidden: Sequence[Tensor]  # of each layer: (batch, tokens, hidden)
    real: Tensor  # (batch, tokens) bool: not padding


class TextDistillation(Distillation):
    keeps_answers = False  # of the teacher, which are of one size each, for the next time a text comes
    unread = "\n"  # in the names of parameters that no answer depends on

    def __init__(
        self,
        config: Distill,
        student: TextModel,
        teacher: TextModel,
        train: Examples,
        select: Examples,
    ) -> None:
        self.config, self.student, self.teacher = config, student, teacher
        self.device = chosen(config.device)
        self.dtype = torch.bfloat16 if wants_bfloat16(config.precision, self.device) else torch.float32
        cast_weights(teacher.module, self.dtype)
        for model in (student, teacher):
            model.module.to(self.device)
        if not train:
            raise DataError("the train split is empty", next="set data.train=0 for all there is")
        self.rows: list[Tokens] = student.processor.encode(train, config.max_length)
        depth = len(teacher.stack.layers())
        self.layers = student.facts.kept_layers or tuple(range(depth))
        held_out = student.processor.encode(select)
        few = spread_queries(held_out, SELECT_ROWS)
        self.select = [(part, self._inputs(part)) for part in in_batches(few, SELECT_BATCH)]
        self.select_answers = [self._teach(inputs).answers for _, inputs in self.select]
        first = self._teach(self.select[0][1])
        self.scale = [float(states[first.real].float().var(0).sum()) for states in first.hidden]
        self.kept: dict[int, Tensor] = {}  # the teacher's answer to each passage seen
        self.trained: dict[str, nn.Parameter] = {}
        self.frozen: dict[str, Tensor] = {}
        for name, parameter in self.net(student).named_parameters():
            if "embed" in name or self.unread in name:
                self.frozen[name] = parameter.requires_grad_(False).to(self.dtype)
            else:
                self.trained[name] = parameter
        super().__init__(config, student, self.trained.values(), beta2=0.99)

    @abstractmethod
    def net(self, model: TextModel) -> nn.Module:
        """The part of a model that is trained."""

    @abstractmethod
    def answers(self, model: TextModel, given: Any, inputs: dict[str, Tensor]) -> Tensor:
        """What is compared, in float32, of what `net` gives: (batch, ...)."""

    @abstractmethod
    def error(self, answers: Tensor, wanted: Tensor) -> Tensor:
        """Mean distance of the student's answers from the teacher's."""

    def label_error(self, answers: Tensor, rows: Sequence[Tokens]) -> Tensor | None:
        """Mean loss of labels, of those that have some; None without."""
        return None

    def epoch(self, seed: int) -> list[list[int]]:
        return bucketed(self.rows, self.config.batch_tokens, seed)

    def learn(self, rows: list[int]) -> tuple[float, int]:
        batch = [self.rows[i] for i in rows]
        inputs = self._inputs(batch)
        seen = self._study(inputs)
        taught = self._teach(inputs) if self._unknown(rows) else None
        if taught is not None and self.keeps_answers:
            self.kept.update(zip(rows, taught.answers, strict=True))
        wanted = taught.answers if taught is not None else torch.stack([self.kept[i] for i in rows])
        loss = self._loss(seen.answers, wanted, batch)
        if taught is not None and self.config.hidden_weight > 0:
            for states, layer in zip(seen.hidden, self.layers, strict=True):
                error = states[seen.real].float() - taught.hidden[layer][seen.real].float()
                relative = error.pow(2).sum(-1).mean() / self.scale[layer]
                loss = loss + self.config.hidden_weight * relative / len(self.layers)
        return self.backward(loss), int(seen.real.sum())

    def _loss(self, answers: Tensor, wanted: Tensor, rows: Sequence[Tokens]) -> Tensor:
        loss = self.error(answers, wanted)
        of_labels = self.label_error(answers, rows)
        return loss if of_labels is None else loss + of_labels

    def _inputs(self, rows: Sequence[Tokens]) -> dict[str, Tensor]:
        return moved(tensors(self.student.processor.feeds(rows)), self.device)

    def _unknown(self, rows: list[int]) -> bool:
        """Whether the teacher has to run: always for hidden states, which are too many to keep."""
        return self.config.hidden_weight > 0 or not all(i in self.kept for i in rows)

    def _teach(self, inputs: dict[str, Tensor]) -> Seen:
        with torch.no_grad():
            return self._read(self.teacher, {}, inputs)

    def _study(self, inputs: dict[str, Tensor]) -> Seen:
        """The student's pass in the fast type; its own weights, which are trained, stay in float32.

        Casting the weights, where autocast casts what flows, keeps residuals and softmax in bfloat16
        too: twice as fast.
        """
        weights = {**self.frozen, **{name: p.to(self.dtype) for name, p in self.trained.items()}}
        return self._read(self.student, weights, inputs)

    def _read(self, model: TextModel, weights: dict[str, Tensor], inputs: dict[str, Tensor]) -> Seen:
        """With other `weights`. What transformers calls hidden states of the last layer may be behind a norm,
        which no other layer's are."""
        hidden = []

        def note(block: nn.Module, args: Any, given: Any) -> None:
            hidden.append(given[0] if isinstance(given, tuple) else given)

        with hooked(block.register_forward_hook(note) for block in model.stack.blocks):
            given = functional_call(self.net(model), weights, kwargs=inputs)
        return Seen(self.answers(model, given, inputs), hidden, inputs["attention_mask"].bool())

    def state(self) -> dict[str, Any]:
        # Computed again, in other batches, the targets would differ in the last bit.
        kept = torch.stack(list(self.kept.values())) if self.kept else torch.empty(0)
        return {**super().state(), "known": list(self.kept), "targets": kept}

    def restore(self, saved: dict[str, Any]) -> None:
        super().restore(saved)
        self.kept = dict(zip(saved["known"], saved["targets"].to(self.device), strict=True))
