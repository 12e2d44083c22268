"""The loop of distillation: steps, looks at the select split, patience, going on after a kill."""

import json
import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from compress.config.recover import Distill, DistillLogits
from compress.errors import GateError
from compress.models.causal_lm import CausalLM
from compress.models.encoder import Encoder

log = logging.getLogger(__name__)


@dataclass
class Progressed:
    """Where the training stands; enough, with the weights, to go on after a kill."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best: float = math.nan  # of `select`
    looks_since_best: int = 0
    steps: list[int] = field(default_factory=list)  # of each look
    train_loss: list[float | None] = field(default_factory=list)  # mean since the look before
    select: list[float] = field(default_factory=list)


class Trainer(ABC):
    """Trains `student` in place; each kind of model says what a batch, its loss and a look at select are."""

    measure: str  # what a look gives
    higher_is_better: bool

    def __init__(
        self,
        config: Distill | DistillLogits,
        student: Encoder | CausalLM,
        parameters: Iterable[torch.nn.Parameter],
        beta2: float,
    ) -> None:
        self.config, self.student, self.parameters = config, student, list(parameters)
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            betas=(0.9, beta2),
            fused=True,
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: learning_rate_factor(step, config.steps, config.warmup)
        )
        self.progressed = Progressed()

    @abstractmethod
    def _epoch(self, seed: int) -> list[list[int]]:
        """The batches of one pass over train, as numbers of its rows."""

    @abstractmethod
    def _learn(self, rows: list[int]) -> tuple[float, int]:
        """Add the gradients of a batch, through `_backward`; its mean loss and its tokens."""

    @abstractmethod
    def _judge(self) -> float:
        """The student's `measure` on the select split."""

    def run(self, scratch: Path) -> Progressed:
        """Train, or go on with what `scratch` keeps; the best weights seen on select are what stays.

        Raises GateError when the loss is not finite.
        """
        self._resume(scratch)
        state, config = self.progressed, self.config
        before, start = state.seconds, time.perf_counter()
        if state.step == 0:
            self._look(None, scratch)
        batches = islice(self._batches(), state.step, None)
        with progress_bar() as bar:
            task = bar.add_task("recover", total=config.steps, completed=state.step, note="")
            losses: list[float] = []
            while state.step < config.steps and state.looks_since_best < config.patience:
                losses.append(self._step(next(batches)))
                state.seconds = before + time.perf_counter() - start
                note = f"loss {losses[-1]:.4f}, select {self.measure} {state.select[-1]:.4f}"
                bar.update(task, completed=state.step, note=note)
                out_of_time = config.max_minutes is not None and state.seconds > config.max_minutes * 60
                if state.step % config.evaluate_every == 0 or state.step == config.steps or out_of_time:
                    self._look(sum(losses) / len(losses), scratch)
                    losses.clear()
                    _write(self._state(), scratch / "training.pt")
                if out_of_time:
                    break
        self.student.module.load_state_dict(_best(scratch))
        return state

    def write(self, out: Path, **curves: list[float]) -> None:
        """The student, and `recover.json` with how training went; `curves`: an entry a look."""
        state = self.progressed
        step = f"distilled for {state.step} steps, {state.tokens / 1e6:.1f} M tokens"
        self.student.save(out, self.student.facts.after(step))
        told = {name: value for name, value in asdict(state).items() if name != "select"}
        (out / "recover.json").write_text(json.dumps({**told, **curves}, indent=2))

    def _batches(self) -> Iterator[list[int]]:
        """The endless sequence of batches that the seed fixes."""
        for epoch in count():
            yield from self._epoch(self.config.seed * 100_003 + epoch)

    def _step(self, rows: list[int]) -> float:
        loss, tokens = self._learn(rows)
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step()
        self.progressed.step += 1
        self.progressed.tokens += tokens
        return loss

    def _backward(self, loss: Tensor, parts: int = 1) -> float:
        """Add the gradients of `loss`, that of one of the equal `parts` of a batch."""
        if not torch.isfinite(loss):
            raise GateError(
                "the training loss is not finite",
                found=f"{float(loss.detach())} at step {self.progressed.step}",
                next=f"lower recover.learning_rate, now {self.config.learning_rate:g}",
            )
        (loss / parts).backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    @torch.no_grad()
    def _look(self, train_loss: float | None, scratch: Path) -> None:
        """Judge the student on the select split and remember the best."""
        state, found = self.progressed, self._judge()
        state.steps.append(state.step)
        state.train_loss.append(train_loss)
        state.select.append(found)
        log.info("step %d: train loss %s, select %s %.4f", state.step, train_loss, self.measure, found)
        state.best = (max if self.higher_is_better else min)(state.select)
        state.looks_since_best = len(state.select) - 1 - state.select.index(state.best)
        if state.looks_since_best == 0:
            # On disk: in memory it would be a fifth copy of the weights, beside those of AdamW.
            _write(self.student.module.state_dict(), scratch / "best.pt")

    def _state(self) -> dict[str, Any]:
        return {
            "student": self.student.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "progressed": asdict(self.progressed),
        }

    def _restore(self, saved: dict[str, Any]) -> None:
        self.student.module.load_state_dict(saved["student"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        self.progressed = Progressed(**saved["progressed"])

    def _resume(self, scratch: Path) -> None:
        path = scratch / "training.pt"
        if not path.is_file():
            return
        try:
            saved = torch.load(path, weights_only=True)
            _best(scratch)
        except Exception as error:  # a torn file ends in whatever the unpickler stumbles over
            log.info("training starts again, %s is damaged: %s", path.name, error)
            return
        self._restore(saved)
        log.info("resumed at step %d", self.progressed.step)


def learning_rate_factor(step: int, total: int, warmup: float) -> float:
    """Linear warm-up over a share of the steps, then a cosine down to zero; 1 at the top."""
    rising = max(1, round(total * warmup))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))


def progress_bar() -> Progress:
    """A progress bar with loss and time left; silent where the output is not a terminal."""
    from rich.console import Console

    console = Console()
    return Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _best(scratch: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = torch.load(scratch / "best.pt", weights_only=True, mmap=True)
    return found


def _write(content: Any, path: Path) -> None:
    partial = path.with_suffix(".partial")
    torch.save(content, partial)
    partial.replace(path)
