"""The one training loop: steps, evaluations on the select split, patience, going on after a kill."""

import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long to train."""

    steps: int
    evaluate_every: int  # steps between two evaluations on the select split
    seed: int
    patience: float = math.inf  # evaluations without a better score before it stops
    max_minutes: float | None = None


@dataclass
class History:
    """Where the training stands; enough, with the weights, to go on after a kill."""

    step: int = 0
    tokens: int = 0  # or images
    seconds: float = 0.0
    best: float = math.nan  # of `select`
    evaluations_since_best: int = 0
    steps: list[int] = field(default_factory=list)  # of each evaluation
    train_loss: list[float | None] = field(default_factory=list)  # mean since the evaluation before
    select: list[float] = field(default_factory=list)  # score of each evaluation

    @property
    def best_evaluation(self) -> int:
        """Which of the evaluations was of the weights that stay."""
        return len(self.select) - 1 - self.evaluations_since_best


class Trainer(ABC):
    """Trains `module` in place; what is trained says what a batch, its loss and its score on select are."""

    score_name: str
    higher_is_better: bool
    start_counts = True  # whether the weights before the first step may be the best
    keep_last = False  # the last weights stay, not the best

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        rate: Callable[[int], float],
        plan: Plan,
    ) -> None:
        """`rate`: step -> share of the optimizer's learning rate."""
        self.module, self.optimizer, self.plan = module, optimizer, plan
        self.schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        self.history = History()

    @abstractmethod
    def epoch(self, seed: int) -> Sequence[list[int]]:
        """The batches of one pass over train, as numbers of its rows."""

    @abstractmethod
    def learn(self, rows: list[int]) -> tuple[float, int]:
        """Add the gradients of a batch; its mean loss, and its tokens or images."""

    @abstractmethod
    def score(self) -> float:
        """Of `weights()` on the select split; called without gradients."""

    def update(self) -> None:
        """Change the weights by the gradients of a batch."""
        self.optimizer.step()

    def weights(self) -> dict[str, Tensor]:
        """Those that would stay."""
        state: dict[str, Tensor] = self.module.state_dict()
        return state

    def state(self) -> dict[str, Any]:
        """All that it takes to go on after a kill."""
        return {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "history": asdict(self.history),
        }

    def restore(self, saved: dict[str, Any]) -> None:
        self.module.load_state_dict(saved["module"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        self.history = History(**saved["history"])

    def run(self, scratch: Path) -> History:
        """Train, or go on with what `scratch` keeps; the weights with the best score on select stay."""
        self._resume(scratch)
        history, plan = self.history, self.plan
        before, start = history.seconds, time.perf_counter()
        if history.step == 0 and self.start_counts:
            self._evaluate(None, scratch)
        batches = islice(self._batches(), history.step, None)
        with progress_bar() as bar:
            task = bar.add_task("train", total=plan.steps, completed=history.step, note="")
            losses: list[float] = []
            while history.step < plan.steps and not self._stops():
                losses.append(self._step(next(batches)))
                history.seconds = before + time.perf_counter() - start
                note = f"loss {losses[-1]:.4f}, select {self.score_name} {history.best:.4f}"
                bar.update(task, completed=history.step, note=note)
                is_last = history.step == plan.steps or self._out_of_time()
                if is_last or history.step % plan.evaluate_every == 0:
                    self._evaluate(sum(losses) / len(losses), scratch)
                    losses.clear()
                    _write(self.state(), scratch / "training.pt")
        self.module.load_state_dict(_best(scratch))
        self.module.to("cpu")  # where it came from
        return history

    def _batches(self) -> Iterator[list[int]]:
        """The endless sequence of batches that the seed fixes."""
        for epoch in count():
            yield from self.epoch(self.plan.seed * 100_003 + epoch)

    def _step(self, rows: list[int]) -> float:
        loss, size = self.learn(rows)
        self.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step()
        self.history.step += 1
        self.history.tokens += size
        return loss

    def _stops(self) -> bool:
        return self._out_of_time() or self.history.evaluations_since_best >= self.plan.patience

    def _out_of_time(self) -> bool:
        minutes = self.plan.max_minutes
        return minutes is not None and self.history.seconds > minutes * 60

    @torch.no_grad()
    def _evaluate(self, train_loss: float | None, scratch: Path) -> None:
        """Score the weights on the select split and remember the best."""
        history, score = self.history, self.score()
        history.steps.append(history.step)
        history.train_loss.append(train_loss)
        history.select.append(score)
        log.info("step %d: train loss %s, select %s %.4f", history.step, train_loss, self.score_name, score)
        history.best = score if self.keep_last else (max if self.higher_is_better else min)(history.select)
        best = len(history.select) - 1 if self.keep_last else history.select.index(history.best)
        history.evaluations_since_best = len(history.select) - 1 - best
        if history.evaluations_since_best == 0:
            # On disk: in memory it would be a fifth copy of the weights, beside those of AdamW.
            _write(self.weights(), scratch / "best.pt")

    def _resume(self, scratch: Path) -> None:
        path = scratch / "training.pt"
        if not path.is_file():
            return
        try:
            saved = torch.load(path, weights_only=True, map_location="cpu")
            _best(scratch)
        except Exception as error:  # a torn file ends in whatever the unpickler stumbles over
            log.info("training starts again, %s is damaged: %s", path.name, error)
            return
        self.restore(saved)
        log.info("resumed at step %d", self.history.step)


def rise_and_fall(step: int, total: int, warmup: float) -> float:
    """Share of the learning rate: linear warm-up over a share of the steps, then a cosine down to zero."""
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
    weights: dict[str, Tensor] = torch.load(
        scratch / "best.pt", weights_only=True, mmap=True, map_location="cpu"
    )
    return weights


def _write(content: Any, path: Path) -> None:
    partial = path.with_suffix(".partial")
    torch.save(content, partial)
    partial.replace(path)
