"""Training of a classifier of images: on labels, and on a teacher's answers where there is one."""

import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from compress.config.recover import Fit, Optimizer, Precision
from compress.data import ImageSplits
from compress.models.image_classifier import ImageClassifier
from compress.system.malloc import keep_freed_memory
from compress.training.augment import augment
from compress.training.precision import wants_bfloat16

log = logging.getLogger(__name__)
_SELECT_BATCH = 500


@dataclass
class Fitted:
    """How training went, an entry an epoch."""

    steps: list[int] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    select_accuracy: list[float] = field(default_factory=list)
    best: float = 0.0
    best_epoch: int = 0
    seconds: float = 0.0


class Trainer:
    """Changes `student` in place; the best epoch's weights, by accuracy on select, are what stays."""

    def __init__(
        self, config: Fit, student: ImageClassifier, teacher: ImageClassifier | None, data: ImageSplits
    ) -> None:
        self.config, self.student, self.teacher, self.data = config, student, teacher, data
        self.net = student.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.bfloat16 = wants_bfloat16(config.precision)
        keep_freed_memory()
        self.steps = math.ceil(len(data.train.labels) / config.batch_size)
        self.optimizer = self._optimizer()
        total = config.epochs * self.steps
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: one_cycle(step / max(1, total), config.warmup)
        )
        self.averaged = {name: t.detach().clone() for name, t in self.net.state_dict().items()}
        self.fitted = Fitted()
        self.best_state = self._weights()
        self.regularize: Callable[[], None] = lambda: None  # adds to the gradients, every step

    def run(self, scratch: Path, best: bool = True) -> Fitted:
        """Train; an interrupted run goes on after its last whole epoch, which `scratch` keeps.

        With `best=False` the last epoch's weights stay.
        """
        config, fitted, saved = self.config, self.fitted, scratch / "training.pt"
        self._resume(saved)
        fitted = self.fitted
        before, start = fitted.seconds, time.perf_counter()
        for epoch in range(len(fitted.steps), config.epochs):
            loss = self._epoch(epoch)
            accuracy = self.accuracy()
            fitted.steps.append((epoch + 1) * self.steps)
            fitted.train_loss.append(loss)
            fitted.select_accuracy.append(accuracy)
            fitted.seconds = before + time.perf_counter() - start
            if accuracy > fitted.best or epoch == 0 or not best:
                fitted.best, fitted.best_epoch, self.best_state = accuracy, epoch + 1, self._weights()
            log.info(
                "epoch %d: loss %.4f, select accuracy %.4f, %.0f s", epoch + 1, loss, accuracy, fitted.seconds
            )
            self._save(saved)
            late = config.max_minutes is not None and fitted.seconds > config.max_minutes * 60
            if late or epoch + 1 - fitted.best_epoch >= config.patience:
                break
        self.net.load_state_dict(self.best_state)
        self.net.eval()
        return fitted

    def _epoch(self, epoch: int) -> float:
        """Mean loss of one pass over train; the same for the same seed and epoch."""
        random = torch.Generator().manual_seed(self.config.seed * 100_003 + epoch)
        order = torch.randperm(len(self.data.train.labels), generator=random).numpy()
        self.net.train()
        losses = []
        for start in range(0, len(order), self.config.batch_size):
            rows = order[start : start + self.config.batch_size]
            if len(rows) > 1:  # one image has no variance to normalise by
                losses.append(self._step(rows, random))
        return sum(losses) / len(losses)

    def _step(self, rows: np.ndarray, random: torch.Generator) -> float:
        config = self.config
        pixels = self.student.inputs(self.data.train.images[rows])["pixel_values"]
        if config.augment:
            pixels = augment(pixels, random, config.shift, config.flip, config.erase)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        labels = torch.from_numpy(self.data.train.labels[rows])
        # torch's own attention takes three times as long backwards as plain products, for short sequences
        with sdpa_kernel(SDPBackend.MATH), torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            logits = self.net(pixels)
        loss = nn.functional.cross_entropy(
            logits.float(), labels, label_smoothing=self.config.label_smoothing
        )
        if self.teacher is not None:
            fast = wants_bfloat16(Precision.auto)  # it takes no gradients, which alone may want float32
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=fast):
                wanted = self.teacher.module(pixels)
            share = self.config.distill
            taught = distillation(logits.float(), wanted.float(), self.config.temperature)
            loss = (1 - share) * loss + share * taught
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.regularize()
        self.optimizer.step()
        self.schedule.step()
        self._average()
        return float(loss.detach())

    @torch.no_grad()
    def accuracy(self) -> float:
        """On select, of the weights that would be kept."""
        own = {name: t.clone() for name, t in self.net.state_dict().items()}
        self.net.load_state_dict(self._weights())
        self.net.eval()
        right = 0
        labels = torch.from_numpy(self.data.select.labels)
        for start, pixels in enumerate(self._select()):
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
                answer = self.net(pixels).argmax(1)
            right += int((answer == labels[start * _SELECT_BATCH : (start + 1) * _SELECT_BATCH]).sum())
        self.net.load_state_dict(own)
        return right / len(labels)

    def _select(self) -> Iterator[Tensor]:
        for batch in self.student.batches(self.data.select.images, _SELECT_BATCH):
            yield batch["pixel_values"].contiguous(memory_format=torch.channels_last)

    def _optimizer(self) -> torch.optim.Optimizer:
        """Norms and biases do not decay."""
        weights = [p for p in self.net.parameters() if p.ndim > 1]
        others = [p for p in self.net.parameters() if p.ndim <= 1]
        groups = [
            {"params": weights, "weight_decay": self.config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        if self.config.optimizer is Optimizer.adamw:
            return torch.optim.AdamW(groups, lr=self.config.learning_rate)
        return torch.optim.SGD(groups, lr=self.config.learning_rate, momentum=0.9, nesterov=True)

    @torch.no_grad()
    def _average(self) -> None:
        if self.config.ema:
            for name, tensor in self.net.state_dict().items():
                kept = self.averaged[name]
                if tensor.is_floating_point():
                    kept.lerp_(tensor, 1 - self.config.ema)
                else:
                    kept.copy_(tensor)

    def _weights(self) -> dict[str, Tensor]:
        source = self.averaged if self.config.ema else self.net.state_dict()
        return {name: tensor.detach().clone() for name, tensor in source.items()}

    def _save(self, path: Path) -> None:
        partial = path.with_suffix(".part")
        state: dict[str, Any] = {
            "net": self.net.state_dict(),
            "averaged": self.averaged,
            "best": self.best_state,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "fitted": asdict(self.fitted),
        }
        torch.save(state, partial)
        partial.replace(path)

    def _resume(self, path: Path) -> None:
        if not path.is_file():
            return
        try:
            saved = torch.load(path, weights_only=True)
        except Exception as error:  # a torn file ends in whatever the unpickler stumbles over
            log.info("training starts again, %s is damaged: %s", path.name, error)
            return
        self.net.load_state_dict(saved["net"])
        self.averaged, self.best_state = saved["averaged"], saved["best"]
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        self.fitted = Fitted(**saved["fitted"])
        log.info("resumed after epoch %d", len(self.fitted.steps))


def one_cycle(done: float, warmup: float) -> float:
    """Share of the peak rate after this share of the steps: linear up, cosine down to zero."""
    if done < warmup:
        return (done + 1e-3) / (warmup + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (done - warmup) / max(1e-9, 1 - warmup))))


def distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) of the softened answers, mean over the batch (Hinton et al. 2015)."""
    soft = nn.functional.log_softmax(student / temperature, 1)
    wanted = nn.functional.log_softmax(teacher / temperature, 1)
    return nn.functional.kl_div(soft, wanted, log_target=True, reduction="batchmean") * temperature**2


def write_fitted(fitted: Fitted, out: Path) -> None:
    (out / "recover.json").write_text(json.dumps(asdict(fitted), indent=1) + "\n")
