"""Distillation of a language model from the dense one's likeliest next tokens, on unlabelled text.

The loss is KL(teacher || student) over the teacher's `top_k` likeliest tokens, all others counting as one
more (word-level distillation: Kim & Rush 2016). What the teacher says is kept on disk, 6 bytes a token and
place: a second epoch, and a run that goes on after a kill, need no teacher. A student of fewer tokens reads
text as its own tokenizer does; the teacher reads the same tokens and answers among them.
"""

import logging
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.config.recover import DistillLogits
from compress.data import load_texts
from compress.errors import ConfigError, DataError
from compress.models.device import chosen
from compress.system.malloc import keep_freed_memory
from compress.tasks.language_modeling.model import CausalLM
from compress.training.distillation import Distillation
from compress.training.precision import cast_weights, wants_bfloat16

log = logging.getLogger(__name__)


def distill(
    config: DistillLogits, student_folder: Path, teacher_folder: Path, splits: Path, out: Path, scratch: Path
) -> None:
    """Write the best student seen on the select split, and note the curve.

    Raises DataError for too little text, ConfigError for windows longer than the model's, GateError when
    the loss is not finite.
    """
    data = load_texts(splits)
    # The backward pass of the fused attention takes longer on a CPU than that of plain products.
    student = CausalLM.open(student_folder, attention="eager")
    teacher = CausalLM.open(teacher_folder)
    trainer = LogitsDistillation(config, student, teacher, data.train.texts, data.select.texts, scratch)
    history = trainer.run(scratch)
    trainer.write(student, out, select_loss=history.select)


# ---------------------------------------------------------------- what the teacher says


def likeliest(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Log probabilities and numbers of the `count` likeliest of each row of `logits` [..., vocabulary]."""
    logits = logits.float()
    values, tokens = logits.topk(min(count, logits.shape[-1]), dim=-1)
    return values - logits.logsumexp(-1, keepdim=True), tokens


def divergence(logits: Tensor, taught: Tensor, tokens: Tensor) -> Tensor:
    """Mean KL(teacher || student), nats, over the `tokens` [..., k] and all others as one.

    `taught` [..., k]: the teacher's log probabilities of these; `logits` [..., vocabulary]: the student's.
    """
    logits = logits.float()
    own = logits.gather(-1, tokens) - logits.logsumexp(-1, keepdim=True)
    known = (taught.exp() * (taught - own)).sum(-1)
    rest, own_rest = (_rest(known_log) for known_log in (taught, own))
    return (known + rest.exp() * (rest - own_rest)).mean()


def _rest(log_probabilities: Tensor) -> Tensor:
    """Log of what is left to 1; at least 1e-6, so that rounding leaves no infinity."""
    return (1 - log_probabilities.exp().sum(-1)).clamp_min(1e-6).log()


class Lessons:
    """What the teacher says of windows of text, on disk as far as it was asked: (windows, tokens, k)."""

    def __init__(self, folder: Path, windows: Tensor, top_k: int) -> None:
        shape = (*windows.shape, top_k)
        self.values = _opened(folder / "values.npy", np.float16, shape)
        self.tokens = _opened(folder / "tokens.npy", np.int32, shape)
        self.known = _opened(folder / "known.npy", np.bool_, (len(windows),))

    def write(self, row: int, values: Tensor, tokens: Tensor) -> None:
        self.values[row], self.tokens[row] = values.cpu().numpy(), tokens.cpu().numpy()
        self.values.flush()
        self.tokens.flush()
        self.known[row] = True  # last: what a kill leaves half written does not count

    def read(self, row: int) -> tuple[Tensor, Tensor]:
        """Log probabilities float32 and numbers int64 (tokens, k) of one window."""
        values, tokens = (torch.from_numpy(np.array(stored[row])) for stored in (self.values, self.tokens))
        return values.float(), tokens.long()


def _opened(path: Path, kind: Any, shape: tuple[int, ...]) -> Any:
    """An array in a file; a file of another shape, or a damaged one, is made anew."""
    try:
        array = np.load(path, mmap_mode="r+")
        if array.shape == shape and array.dtype == kind:
            return array
    except (OSError, ValueError, EOFError) as error:
        log.debug("%s is made anew: %s", path.name, error)
    path.parent.mkdir(parents=True, exist_ok=True)
    return np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=shape)


# ---------------------------------------------------------------- training


class LogitsDistillation(Distillation):
    score_name, higher_is_better = "loss", False  # mean KL to the teacher, nats

    def __init__(
        self,
        config: DistillLogits,
        student: CausalLM,
        teacher: CausalLM,
        train: Sequence[str],
        select: Sequence[str],
        scratch: Path,
    ) -> None:
        if not train:
            raise DataError("the train split is empty", next="name a corpus in data.train")
        longest = int(getattr(student.config, "max_position_embeddings", None) or config.context)
        if config.context > longest:
            raise ConfigError(
                "recover.context is longer than the model's",
                found=config.context,
                allowed=f"at most {longest}",
            )
        self.config, self.student = config, student
        self.device = chosen(config.device)
        self.bfloat16 = wants_bfloat16(config.precision, self.device)
        keep_freed_memory()
        self.windows = student.windows(train, config.context)
        self.select = student.windows(select, config.context)[: config.select_windows]
        kept = student.facts.kept_tokens
        self.kept_tokens = None if kept is None else torch.tensor(kept)
        self.teacher: Any = teacher.module
        cast_weights(self.teacher, torch.bfloat16 if self.bfloat16 else torch.float32)
        for module in (self.teacher, student.module):
            module.to(self.device)
        top_k = min(config.top_k, int(student.config.vocab_size))
        self.lessons = Lessons(scratch / "train", self.windows, top_k)
        self.select_lessons = Lessons(scratch / "select", self.select, top_k)
        trained = [p for p in student.module.parameters() if p.requires_grad]
        super().__init__(config, student, trained, beta2=0.95)

    def epoch(self, seed: int) -> list[list[int]]:
        order, size = list(range(len(self.windows))), self.config.batch_windows
        random.Random(seed).shuffle(order)
        return [order[start : start + size] for start in range(0, len(order), size)]

    def learn(self, rows: list[int]) -> tuple[float, int]:
        """A window at a time: the logits of one are 100 MB, and as much again backwards."""
        self.student.module.train()
        total = 0.0
        for row in rows:
            total += self.backward(self._loss(self.windows[row], row, self.lessons), len(rows))
        return total / len(rows), len(rows) * self.config.context

    def score(self) -> float:
        self.student.module.eval()
        losses = [float(self._loss(ids, row, self.select_lessons)) for row, ids in enumerate(self.select)]
        return sum(losses) / len(losses)

    def _loss(self, ids: Tensor, row: int, lessons: Lessons) -> Tensor:
        if not lessons.known[row]:
            lessons.write(row, *self._teach(ids))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            logits = self.student.module(input_ids=ids[None].to(self.device), use_cache=False).logits[0]
        return divergence(logits, *(each.to(self.device) for each in lessons.read(row)))

    @torch.no_grad()
    def _teach(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's log probabilities and numbers (tokens, k) for a window of the student's tokens."""
        kept, top_k = self.kept_tokens, self.lessons.values.shape[2]
        tokens = (ids if kept is None else kept[ids])[None].to(self.device)
        logits = self.teacher(input_ids=tokens, use_cache=False).logits[0]
        return likeliest(logits if kept is None else logits[:, kept], top_k)
