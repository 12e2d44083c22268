"""Distillation of a language model from the dense one's likeliest next tokens, on unlabelled text.

The loss is KL(teacher || student) over the teacher's `top_k` likeliest tokens, all others counting as one
more (word-level distillation: Kim & Rush 2016). What the teacher says is kept on disk, 6 bytes a token and
place: a second epoch, and a run that goes on after a kill, need no teacher. A student of fewer tokens reads
text as its own tokenizer does; the teacher reads the same tokens and answers among them.
"""

import json
import logging
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.config import DistillLogits
from compress.data import load_texts
from compress.errors import ConfigError, DataError, GateError
from compress.families import load_causal_lm
from compress.families.causal_lm import CausalLM
from compress.recover.distill import learning_rate_factor, progress_bar
from compress.registry import register
from compress.training.memory import keep_freed_memory
from compress.training.precision import wants_bfloat16

log = logging.getLogger(__name__)


@dataclass
class Progressed:
    """Where the training stands; enough, with the weights, to go on after a kill."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best: float = float("inf")  # mean KL to the teacher on select, nats
    looks_since_best: int = 0
    steps: list[int] = field(default_factory=list)
    train_loss: list[float | None] = field(default_factory=list)
    select_loss: list[float] = field(default_factory=list)


@register(DistillLogits)
def recover(
    config: DistillLogits, student_folder: Path, teacher_folder: Path, splits: Path, out: Path, scratch: Path
) -> None:
    """Write the best student seen on the select split, and `recover.json` with the curve.

    Raises DataError for too little text, ConfigError for windows longer than the model's, GateError when
    the loss is not finite.
    """
    data = load_texts(splits)
    # The backward pass of the fused attention takes longer on a CPU than that of plain products.
    student = load_causal_lm(student_folder, attention="eager")
    teacher = load_causal_lm(teacher_folder)
    trainer = _Trainer(config, student, teacher, data.train.texts, data.select.texts, scratch)
    progressed = trainer.run()
    student.module.load_state_dict(trainer.best_state())
    step = f"distilled for {progressed.step} steps, {progressed.tokens / 1e6:.1f} M tokens"
    student.save(out, student.facts.after(step))
    (out / "recover.json").write_text(json.dumps(asdict(progressed), indent=2))


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
    rest, own_rest = (_rest(each) for each in (taught, own))
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
        self.values[row], self.tokens[row] = values.numpy(), tokens.numpy()
        self.values.flush()
        self.tokens.flush()
        self.known[row] = True  # last: what a kill leaves half written does not count

    def read(self, row: int) -> tuple[Tensor, Tensor]:
        """Log probabilities float32 and numbers int64 (tokens, k) of one window."""
        values, tokens = (torch.from_numpy(np.array(each[row])) for each in (self.values, self.tokens))
        return values.float(), tokens.long()


def _opened(path: Path, kind: Any, shape: tuple[int, ...]) -> Any:
    """An array in a file; a file of another shape, or a damaged one, is made anew."""
    try:
        found = np.load(path, mmap_mode="r+")
        if found.shape == shape and found.dtype == kind:
            return found
    except (OSError, ValueError, EOFError) as error:
        log.debug("%s is made anew: %s", path.name, error)
    path.parent.mkdir(parents=True, exist_ok=True)
    return np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=shape)


# ---------------------------------------------------------------- training


class _Trainer:
    def __init__(
        self,
        config: DistillLogits,
        student: CausalLM,
        teacher: CausalLM,
        train: Sequence[str],
        select: Sequence[str],
        scratch: Path,
    ) -> None:
        self.config, self.student, self.scratch = config, student, scratch
        if not train:
            raise DataError("the train split is empty", next="name a corpus in data.train")
        longest = int(getattr(student.config, "max_position_embeddings", None) or config.context)
        if config.context > longest:
            raise ConfigError(
                "recover.context is longer than the model's",
                found=config.context,
                allowed=f"at most {longest}",
            )
        self.bfloat16 = wants_bfloat16(config.precision)
        keep_freed_memory()
        self.windows = student.windows(train, config.context)
        self.select = student.windows(select, config.context)[: config.select_windows]
        kept: tuple[int, ...] | None = getattr(student.facts, "kept_tokens", None)
        self.kept = None if kept is None else torch.tensor(kept)
        self.teacher: Any = teacher.module.to(torch.bfloat16 if self.bfloat16 else torch.float32)
        top_k = min(config.top_k, int(student.config.vocab_size))
        self.lessons = Lessons(scratch / "train", self.windows, top_k)
        self.select_lessons = Lessons(scratch / "select", self.select, top_k)
        self.parameters = [p for p in student.module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            betas=(0.9, 0.95),
            fused=True,
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: learning_rate_factor(step, config.steps, config.warmup)
        )
        self.progressed = Progressed()

    def run(self) -> Progressed:
        saved = self.scratch / "training.pt"
        if saved.is_file():
            self._resume(saved)
        state, config = self.progressed, self.config
        before, start = state.seconds, time.perf_counter()
        if state.step == 0 and not state.steps:
            self._look(None)
        batches = self._batches(skip=state.step)
        with progress_bar() as bar:
            task = bar.add_task("recover", total=config.steps, completed=state.step, note="")
            losses: list[float] = []
            while state.step < config.steps and state.looks_since_best < config.patience:
                losses.append(self._step(next(batches)))
                state.seconds = before + time.perf_counter() - start
                note = f"loss {losses[-1]:.4f}, select {state.select_loss[-1]:.4f}"
                bar.update(task, completed=state.step, note=note)
                out_of_time = config.max_minutes is not None and state.seconds > config.max_minutes * 60
                if state.step % config.evaluate_every == 0 or state.step == config.steps or out_of_time:
                    self._look(sum(losses) / len(losses))
                    losses.clear()
                    self._save(saved)
                if out_of_time:
                    break
        return state

    def _step(self, rows: list[int]) -> float:
        """A window at a time: the logits of one are 100 MB, and as much again backwards."""
        total = 0.0
        self.student.module.train()
        for row in rows:
            loss = self._loss(self.windows[row], row, self.lessons)
            if not torch.isfinite(loss):
                raise GateError(
                    "the training loss is not finite",
                    found=f"{float(loss.detach())} at step {self.progressed.step}",
                    next=f"lower recover.learning_rate, now {self.config.learning_rate:g}",
                )
            (loss / len(rows)).backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step()
        self.progressed.step += 1
        self.progressed.tokens += len(rows) * self.config.context
        return total / len(rows)

    def _loss(self, ids: Tensor, row: int, lessons: Lessons) -> Tensor:
        if not lessons.known[row]:
            lessons.write(row, *self._teach(ids))
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            logits = self.student.module(input_ids=ids[None], use_cache=False).logits[0]
        return divergence(logits, *lessons.read(row))

    @torch.no_grad()
    def _teach(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's log probabilities and numbers (tokens, k) for a window of the student's tokens."""
        own = ids if self.kept is None else self.kept[ids]
        logits = self.teacher(input_ids=own[None], use_cache=False).logits[0]
        return likeliest(logits if self.kept is None else logits[:, self.kept], self.lessons.values.shape[2])

    def _batches(self, skip: int) -> Iterator[list[int]]:
        """The endless sequence of batches that the seed fixes, from step `skip` on."""
        size, epoch = self.config.batch_windows, 0
        while True:
            order = list(range(len(self.windows)))
            random.Random(self.config.seed * 100_003 + epoch).shuffle(order)
            for start in range(0, len(order), size):
                if skip > 0:
                    skip -= 1
                else:
                    yield order[start : start + size]
            epoch += 1

    @torch.no_grad()
    def _look(self, train_loss: float | None) -> None:
        """Judge the student on the select split and remember the best."""
        self.student.module.eval()
        losses = [float(self._loss(ids, row, self.select_lessons)) for row, ids in enumerate(self.select)]
        state, loss = self.progressed, sum(losses) / len(losses)
        state.steps.append(state.step)
        state.select_loss.append(loss)
        state.train_loss.append(train_loss)
        log.info("step %d: train loss %s, select loss %.4f", state.step, train_loss, loss)
        if loss < state.best:
            state.best, state.looks_since_best = loss, 0
            _write(self.student.module.state_dict(), self._best)
        else:
            state.looks_since_best += 1

    @property
    def _best(self) -> Path:
        return self.scratch / "best.pt"

    def best_state(self) -> dict[str, Tensor]:
        """Kept on disk: in memory it would be a fifth copy of the weights, beside those of AdamW."""
        found: dict[str, Tensor] = torch.load(self._best, weights_only=True, mmap=True)
        return found

    def _save(self, path: Path) -> None:
        state = {
            "student": self.student.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "progressed": asdict(self.progressed),
        }
        _write(state, path)

    def _resume(self, path: Path) -> None:
        try:
            saved = torch.load(path, weights_only=True)
            torch.load(self._best, weights_only=True, mmap=True)
        except Exception as error:  # a torn file ends in whatever the unpickler stumbles over
            log.info("training starts again, %s is damaged: %s", path.name, error)
            return
        self.student.module.load_state_dict(saved["student"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        self.progressed = Progressed(**saved["progressed"])
        log.info("resumed at step %d", self.progressed.step)


def _write(content: Any, path: Path) -> None:
    partial = path.with_suffix(".partial")
    torch.save(content, partial)
    partial.replace(path)
