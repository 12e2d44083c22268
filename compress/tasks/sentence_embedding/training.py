"""Distillation of an encoder from the dense model, on unlabelled text.

The loss is the cosine distance of the embeddings plus the error of each layer's hidden states, relative
to their variance (as in TinyBERT, Jiao et al. 2020, without the attention maps). Embedding tables stay
as they are: they are half of the parameters and were not pruned. There is no dropout: the target is
exact, noise would only blur it.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cosine_similarity

from compress.config.recover import Distill
from compress.data import load_texts
from compress.errors import DataError
from compress.models.hooks import hooked
from compress.tasks.base import tensors
from compress.tasks.sentence_embedding.model import Encoder
from compress.training.device import chosen, moved
from compress.training.distillation import Distillation
from compress.training.precision import cast_weights, wants_bfloat16

COSINE_WEIGHT = 10.0  # of the embeddings' loss; it is about a tenth of the hidden states'


def distill(
    config: Distill, student_folder: Path, teacher_folder: Path, splits: Path, out: Path, scratch: Path
) -> None:
    """Write the best student seen on the select split, and note the curve.

    Raises GateError when the loss is not finite.
    """
    data = load_texts(splits)
    # The backward pass of the fused attention takes half of a step on a CPU; plain products do not.
    student, teacher = (
        Encoder.open(folder, attention="eager") for folder in (student_folder, teacher_folder)
    )
    trainer = EncoderDistillation(config, student, teacher, data.train.texts, data.select.texts)
    history = trainer.run(scratch)
    losses = [COSINE_WEIGHT * (1 - cosine) for cosine in history.select]
    trainer.write(student, out, select_cosine=history.select, select_loss=losses)


def bucketed(lengths: Sequence[int], batch_tokens: int, seed: int) -> list[list[int]]:
    """One epoch: batches of similar length with at most `batch_tokens` padded tokens, shuffled.

    A text that is longer than that makes a batch of its own.
    """
    rng = random.Random(seed)
    order = sorted(range(len(lengths)), key=lambda i: lengths[i] + rng.random() * 2)
    batches: list[list[int]] = []
    longest = 0
    for index in order:
        longest = max(longest, lengths[index])
        if not batches or (len(batches[-1]) + 1) * longest > batch_tokens:
            batches.append([])
            longest = lengths[index]
        batches[-1].append(index)
    rng.shuffle(batches)
    return batches


@dataclass(frozen=True)
class Outputs:
    embedding: Tensor  # (batch, hidden) float32
    hidden: Sequence[Tensor]  # of each layer: (batch, tokens, hidden)
    real: Tensor  # (batch, tokens) bool: not padding


class EncoderDistillation(Distillation):
    score_name, higher_is_better = "cosine", True  # of the student's embeddings to the teacher's, mean

    def __init__(
        self,
        config: Distill,
        student: Encoder,
        teacher: Encoder,
        train: Sequence[str],
        select: Sequence[str],
    ) -> None:
        self.config, self.student, self.teacher = config, student, teacher
        self.device = chosen(config.device)
        self.dtype = torch.bfloat16 if wants_bfloat16(config.precision, self.device) else torch.float32
        cast_weights(teacher.module, self.dtype)
        for model in (student, teacher):
            model.module.to(self.device)
        if not train:
            raise DataError("the train split is empty", next="set data.train=0 for all there is")
        self.ids = student.processor.encode(train, config.max_length)
        depth = len(teacher.stack.layers())
        self.layers = student.facts.kept_layers or tuple(range(depth))
        self.select = [moved(batch, self.device) for batch in student.batches(select, 64)]
        self.select_targets = [self._teach(batch).embedding for batch in self.select]
        first = self._teach(self.select[0])
        self.scale = [float(states[first.real].float().var(0).sum()) for states in first.hidden]
        self.targets: dict[int, Tensor] = {}  # the teacher's embedding of each passage seen
        self.trained: dict[str, torch.nn.Parameter] = {}
        self.frozen: dict[str, Tensor] = {}
        for name, parameter in student.module.backbone.named_parameters():
            if "embed" in name or "pooler." in name:
                self.frozen[name] = parameter.requires_grad_(False).to(self.dtype)
            else:
                self.trained[name] = parameter
        super().__init__(config, student, self.trained.values(), beta2=0.99)

    def epoch(self, seed: int) -> list[list[int]]:
        return bucketed([len(ids) for ids in self.ids], self.config.batch_tokens, seed)

    def learn(self, rows: list[int]) -> tuple[float, int]:
        ids, mask = self.student.processor.tokenizer.padded([self.ids[i] for i in rows])
        inputs = moved(tensors({"input_ids": ids, "attention_mask": mask}), self.device)
        seen = self._study(inputs)
        taught = self._teach(inputs) if self._unknown(rows) else None
        if taught is not None:
            self.targets.update(zip(rows, taught.embedding, strict=True))
        target = torch.stack([self.targets[i] for i in rows])
        loss = COSINE_WEIGHT * (1 - cosine_similarity(seen.embedding, target)).mean()
        if taught is not None and self.config.hidden_weight > 0:
            for states, layer in zip(seen.hidden, self.layers, strict=True):
                error = states[seen.real].float() - taught.hidden[layer][seen.real].float()
                relative = error.pow(2).sum(-1).mean() / self.scale[layer]
                loss = loss + self.config.hidden_weight * relative / len(self.layers)
        return self.backward(loss), int(seen.real.sum())

    def score(self) -> float:
        cosines = [
            cosine_similarity(self._study(batch).embedding, target)
            for batch, target in zip(self.select, self.select_targets, strict=True)
        ]
        return float(torch.cat(cosines).mean())

    def _unknown(self, rows: list[int]) -> bool:
        """Whether the teacher has to run: always for hidden states, which are too many to keep."""
        return self.config.hidden_weight > 0 or not all(i in self.targets for i in rows)

    def _teach(self, inputs: dict[str, Tensor]) -> Outputs:
        with torch.no_grad():
            return _read(self.teacher, {}, inputs)

    def _study(self, inputs: dict[str, Tensor]) -> Outputs:
        """The student's pass in the fast type; its own weights, which are trained, stay in float32.

        Casting the weights, where autocast casts what flows, keeps residuals and softmax in bfloat16
        too: twice as fast.
        """
        weights = {**self.frozen, **{name: p.to(self.dtype) for name, p in self.trained.items()}}
        return _read(self.student, weights, inputs)

    def state(self) -> dict[str, Any]:
        # Computed again, in other batches, the targets would differ in the last bit.
        targets = {"known": list(self.targets), "targets": torch.stack(list(self.targets.values()))}
        return {**super().state(), **targets}

    def restore(self, saved: dict[str, Any]) -> None:
        super().restore(saved)
        self.targets = dict(zip(saved["known"], saved["targets"].to(self.device), strict=True))


def _read(encoder: Encoder, weights: dict[str, Tensor], inputs: dict[str, Tensor]) -> Outputs:
    """Of the backbone with other `weights`. What transformers calls hidden states of the last layer may be
    behind a norm, which no other layer's are."""
    hidden, backbone, mask = [], encoder.module.backbone, inputs["attention_mask"]

    def note(block: nn.Module, args: Any, given: Any) -> None:
        hidden.append(given[0] if isinstance(given, tuple) else given)

    with hooked(block.register_forward_hook(note) for block in encoder.stack.blocks):
        states = functional_call(backbone, weights, kwargs=inputs)
    pooled = encoder.module.pool(states.last_hidden_state.float(), mask)
    return Outputs(pooled, hidden, mask.bool())
