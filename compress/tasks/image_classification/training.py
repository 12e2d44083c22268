"""Training of a classifier of images: on labels, and on a teacher's answers where there is one."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from compress.config.recover import Finetune, Fit, Optimizer, Precision
from compress.data.images import ImageSplits, load_images
from compress.models.device import chosen
from compress.stages.result import write_result
from compress.system.malloc import keep_freed_memory
from compress.tasks.image_classification.augment import augment
from compress.tasks.image_classification.model import ImageClassifier
from compress.training.distillation import distillation
from compress.training.loop import History, Plan, Trainer
from compress.training.precision import wants_bfloat16

_SELECT_BATCH = 500


def finetune(config: Finetune, student: Path, teacher: Path, splits: Path, out: Path, scratch: Path) -> None:
    """Train `student` on the train split; the epoch that does best on select is kept."""
    model = ImageClassifier.open(student)
    dense = ImageClassifier.open(teacher) if config.distill else None
    history = ClassifierTraining(config, model, dense, load_images(splits)).run(scratch)
    taught = f", {config.distill:.0%} of the loss from the dense model's answers" if dense else ""
    model.save(out, model.facts.after(f"fine-tuned for {len(history.steps)} epochs{taught}"))
    write_history(history, out)


class ClassifierTraining(Trainer):
    """Changes `student` in place; the best epoch's weights, by accuracy on select, are what stays."""

    score_name, higher_is_better, start_counts = "accuracy", True, False

    def __init__(
        self,
        config: Fit,
        student: ImageClassifier,
        teacher: ImageClassifier | None,
        data: ImageSplits,
        keep_last: bool = False,
    ) -> None:
        self.config, self.student, self.teacher, self.data = config, student, teacher, data
        self.keep_last = keep_last
        self.regularize: Callable[[], None] = lambda: None  # adds to the gradients, every step
        self.device = chosen(config.device)
        self.net = student.module.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if teacher is not None:
            teacher.module.to(self.device)
        self.bfloat16 = wants_bfloat16(config.precision, self.device)
        keep_freed_memory()
        epoch = len(self.epoch(0))
        plan = Plan(
            steps=config.epochs * epoch,
            evaluate_every=epoch,
            seed=config.seed,
            patience=config.patience,
            max_minutes=config.max_minutes,
        )
        total, warmup = max(1, plan.steps), config.warmup
        super().__init__(self.net, self._optimizer(), lambda step: one_cycle(step / total, warmup), plan)
        start = self.net.state_dict() if config.ema else {}
        self.averaged = {name: tensor.detach().clone() for name, tensor in start.items()}

    def run(self, scratch: Path) -> History:
        history = super().run(scratch)
        self.net.eval()
        return history

    def epoch(self, seed: int) -> list[list[int]]:
        self.random = torch.Generator().manual_seed(seed)  # of the order, then of what augments
        order = torch.randperm(len(self.data.train.labels), generator=self.random)
        batches = [rows.tolist() for rows in torch.split(order, self.config.batch_size)]
        return [rows for rows in batches if len(rows) > 1]  # one image has no variance to normalise by

    def learn(self, rows: list[int]) -> tuple[float, int]:
        config = self.config
        self.net.train()
        pixels = self.student.inputs(self.data.train.images[rows])["pixel_values"]
        if config.augment:
            pixels = augment(pixels, self.random, config.shift, config.flip, config.erase)
        pixels = pixels.to(self.device).contiguous(memory_format=torch.channels_last)
        labels = torch.from_numpy(self.data.train.labels[rows]).to(self.device)
        # torch's own attention takes three times as long backwards as plain products, for short sequences
        with (
            sdpa_kernel(SDPBackend.MATH),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16),
        ):
            logits = self.net(pixels)
        loss = nn.functional.cross_entropy(logits.float(), labels, label_smoothing=config.label_smoothing)
        if self.teacher is not None:
            fast = wants_bfloat16(Precision.auto, self.device)  # no gradients, which alone may want float32
            with torch.no_grad(), self._autocast(fast):
                wanted = self.teacher.module(pixels)
            taught = distillation(logits.float(), wanted.float(), config.temperature)
            loss = (1 - config.distill) * loss + config.distill * taught
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach()), len(rows)

    def score(self) -> float:
        """Share of right answers on select, of the weights that would be kept."""
        own = {name: t.clone() for name, t in self.net.state_dict().items()}
        self.net.load_state_dict(self.weights())
        self.net.eval()
        right = 0
        labels = torch.from_numpy(self.data.select.labels)
        for answers, expected in zip(self._answers(), torch.split(labels, _SELECT_BATCH), strict=True):
            right += int((answers == expected).sum())
        self.net.load_state_dict(own)
        return right / len(labels)

    def _answers(self) -> Iterator[Tensor]:
        for batch in self.student.batches(self.data.select.images, _SELECT_BATCH):
            pixels = batch["pixel_values"].to(self.device).contiguous(memory_format=torch.channels_last)
            with self._autocast(self.bfloat16):
                yield self.net(pixels).argmax(1).cpu()

    def _autocast(self, bfloat16: bool) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16)

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

    def update(self) -> None:
        self.regularize()
        super().update()
        with torch.no_grad():
            now = self.net.state_dict()
            for name, average in self.averaged.items():
                if average.is_floating_point():
                    average.lerp_(now[name], 1 - self.config.ema)
                else:
                    average.copy_(now[name])

    def weights(self) -> dict[str, Tensor]:
        return self.averaged or super().weights()

    def state(self) -> dict[str, Any]:
        return {**super().state(), "averaged": self.averaged}

    def restore(self, saved: dict[str, Any]) -> None:
        super().restore(saved)
        self.averaged = saved["averaged"]


def one_cycle(done: float, warmup: float) -> float:
    """Share of the peak rate after this share of the steps: linear up, cosine down to zero."""
    if done < warmup:
        return (done + 1e-3) / (warmup + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (done - warmup) / max(1e-9, 1 - warmup))))


def write_history(history: History, out: Path) -> None:
    """How training went, an entry an epoch."""
    described = {
        "steps": history.steps,
        "train_loss": history.train_loss,
        "select_accuracy": history.select,
        "best": history.best,
        "best_epoch": history.best_evaluation + 1,
        "seconds": history.seconds,
    }
    write_result(out, facts={"recovery": described})
