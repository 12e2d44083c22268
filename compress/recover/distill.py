"""Distillation of an encoder from the dense model, on unlabelled text.

The loss is the cosine distance of the embeddings plus the error of each layer's hidden states, relative
to their variance (as in TinyBERT, Jiao et al. 2020, without the attention maps). Embedding tables stay
as they are: they are half of the parameters and were not pruned. There is no dropout: the target is
exact, noise would only blur it.
"""

import json
import logging
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.func import functional_call

from compress.config import Distill
from compress.data import load_texts
from compress.errors import DataError, GateError
from compress.families import load_encoder
from compress.families.encoder import Encoder
from compress.registry import register
from compress.training.precision import wants_bfloat16

log = logging.getLogger(__name__)
COSINE_WEIGHT = 10.0  # of the embeddings' loss; it is about a tenth of the hidden states'


@dataclass
class Progressed:
    """Where the training stands; enough, with the weights, to go on after a kill."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best: float = -1.0  # mean cosine to the teacher on select
    looks_since_best: int = 0
    steps: list[int] = field(default_factory=list)
    train_loss: list[float | None] = field(default_factory=list)
    select_cosine: list[float] = field(default_factory=list)


@register(Distill)
def recover(
    config: Distill, student_folder: Path, teacher_folder: Path, splits: Path, out: Path, scratch: Path
) -> None:
    """Write the best student seen on the select split, and `recover.json` with the curve.

    Raises GateError when the loss is not finite.
    """
    data = load_texts(splits)
    # The backward pass of the fused attention takes half of a step on a CPU; plain products do not.
    student, teacher = (
        load_encoder(folder, attention="eager") for folder in (student_folder, teacher_folder)
    )
    trainer = _Trainer(config, student, teacher, data.train.texts, data.select.texts)
    progressed = trainer.run(scratch)
    student.module.load_state_dict(trainer.best_state)
    step = f"distilled for {progressed.step} steps, {progressed.tokens / 1e6:.1f} M tokens"
    student.save(out, student.facts.after(step))
    select_loss = [COSINE_WEIGHT * (1 - cosine) for cosine in progressed.select_cosine]
    (out / "recover.json").write_text(
        json.dumps({**asdict(progressed), "select_loss": select_loss}, indent=2)
    )


def learning_rate_factor(step: int, total: int, warmup: float) -> float:
    """Linear warm-up over a share of the steps, then a cosine down to zero; 1 at the top."""
    rising = max(1, round(total * warmup))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))


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


class _Trainer:
    def __init__(
        self,
        config: Distill,
        student: Encoder,
        teacher: Encoder,
        train: Sequence[str],
        select: Sequence[str],
    ) -> None:
        self.config, self.student, self.teacher = config, student, teacher
        self.dtype = torch.bfloat16 if wants_bfloat16(config.precision) else torch.float32
        teacher.module.to(self.dtype)
        if not train:
            raise DataError("the train split is empty", next="set data.train=0 for all there is")
        length = min(config.max_length, student.max_length)
        encode = student.tokenizer(list(train), truncation=True, max_length=length, verbose=False)
        self.ids: list[list[int]] = encode["input_ids"]
        depth = len(teacher.stack.layers())
        self.layers = student.facts.kept_layers or tuple(range(depth))
        self.select = list(student.batches(select, 64))
        self.select_targets = [self._teach(batch).embedding for batch in self.select]
        first = self._teach(self.select[0])
        self.scale = [float(states[first.real].float().var(0).sum()) for states in first.hidden]
        self.targets: dict[int, Tensor] = {}  # the teacher's embedding of each passage seen
        self.trained: dict[str, torch.nn.Parameter] = {}
        self.frozen: dict[str, Tensor] = {}
        for name, parameter in student.module.backbone.named_parameters():
            if "embeddings." in name or "pooler." in name:
                self.frozen[name] = parameter.requires_grad_(False).to(self.dtype)
            else:
                self.trained[name] = parameter
        self.optimizer = torch.optim.AdamW(
            self.trained.values(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            betas=(0.9, 0.99),
            fused=True,
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: learning_rate_factor(step, config.steps, config.warmup)
        )
        self.progressed = Progressed()
        self.best_state = self._weights()

    def run(self, scratch: Path) -> Progressed:
        saved = scratch / "training.pt"
        if saved.is_file():
            self._resume(saved)
        state, config = self.progressed, self.config
        before, start = state.seconds, time.perf_counter()
        if state.step == 0:
            self._look(None)
        batches = self._batches(skip=state.step)
        with progress_bar() as bar:
            task = bar.add_task("recover", total=config.steps, completed=state.step, note="")
            losses: list[float] = []
            while state.step < config.steps and state.looks_since_best < config.patience:
                losses.append(self._step(next(batches)))
                state.seconds = before + time.perf_counter() - start
                note = f"loss {losses[-1]:.4f}, select cosine {state.select_cosine[-1]:.4f}"
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
        batch = self.student.tokenizer.pad({"input_ids": [self.ids[i] for i in rows]}, return_tensors="pt")
        inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        seen = self._study(inputs)
        taught = self._teach(inputs) if self._unknown(rows) else None
        if taught is not None:
            self.targets.update(zip(rows, taught.embedding, strict=True))
        target = torch.stack([self.targets[i] for i in rows])
        loss = COSINE_WEIGHT * (1 - torch.nn.functional.cosine_similarity(seen.embedding, target)).mean()
        if taught is not None and self.config.hidden_weight > 0:
            for states, layer in zip(seen.hidden, self.layers, strict=True):
                error = states[seen.real].float() - taught.hidden[layer][seen.real].float()
                relative = error.pow(2).sum(-1).mean() / self.scale[layer]
                loss = loss + self.config.hidden_weight * relative / len(self.layers)
        if not torch.isfinite(loss):
            raise GateError(
                "the training loss is not finite",
                found=f"{float(loss.detach())} at step {self.progressed.step}",
                next=f"lower recover.learning_rate, now {self.config.learning_rate:g}",
            )
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.trained.values(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step()
        self.progressed.step += 1
        self.progressed.tokens += int(seen.real.sum())
        return float(loss.detach())

    def _unknown(self, rows: list[int]) -> bool:
        """Whether the teacher has to run: always for hidden states, which are too many to keep."""
        return self.config.hidden_weight > 0 or not all(i in self.targets for i in rows)

    def _teach(self, inputs: dict[str, Tensor]) -> Outputs:
        with torch.no_grad():
            return self._read(
                self.teacher, self.teacher.module.backbone(**inputs, output_hidden_states=True), inputs
            )

    def _study(self, inputs: dict[str, Tensor]) -> Outputs:
        """The student's pass in the fast type; its own weights, which are trained, stay in float32.

        Casting the weights, where autocast casts what flows, keeps residuals and softmax in bfloat16
        too: twice as fast.
        """
        weights = {**self.frozen, **{name: p.to(self.dtype) for name, p in self.trained.items()}}
        arguments = {**inputs, "output_hidden_states": True}
        states = functional_call(self.student.module.backbone, weights, kwargs=arguments)
        return self._read(self.student, states, inputs)

    def _read(self, encoder: Encoder, states: Any, inputs: dict[str, Tensor]) -> Outputs:
        mask = inputs["attention_mask"]
        pooled = encoder.module.pool(states.last_hidden_state.float(), mask)
        return Outputs(pooled, states.hidden_states[1:], mask.bool())

    def _batches(self, skip: int) -> Iterator[list[int]]:
        """The endless sequence of batches that the seed fixes, from step `skip` on."""
        lengths, epoch = [len(ids) for ids in self.ids], 0
        while True:
            for batch in bucketed(lengths, self.config.batch_tokens, self.config.seed * 100_003 + epoch):
                if skip > 0:
                    skip -= 1
                else:
                    yield batch
            epoch += 1

    @torch.no_grad()
    def _look(self, train_loss: float | None) -> None:
        """Judge the student on the select split and remember the best."""
        cosines = [
            torch.nn.functional.cosine_similarity(self._study(batch).embedding, target)
            for batch, target in zip(self.select, self.select_targets, strict=True)
        ]
        state, cosine = self.progressed, float(torch.cat(cosines).mean())
        state.steps.append(state.step)
        state.select_cosine.append(cosine)
        state.train_loss.append(train_loss)
        log.info("step %d: train loss %s, select cosine %.4f", state.step, train_loss, cosine)
        if cosine > state.best:
            state.best, state.looks_since_best, self.best_state = cosine, 0, self._weights()
        else:
            state.looks_since_best += 1

    def _weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.student.module.state_dict().items()}

    def _save(self, path: Path) -> None:
        partial = path.with_suffix(".partial")
        torch.save(
            {
                "student": self._weights(),
                "best": self.best_state,
                # Computed again, in other batches, they would differ in the last bit.
                "known": list(self.targets),
                "targets": torch.stack(list(self.targets.values())),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "progressed": asdict(self.progressed),
            },
            partial,
        )
        partial.replace(path)

    def _resume(self, path: Path) -> None:
        try:
            saved = torch.load(path, weights_only=True)
        except Exception as error:  # a torn file ends in whatever the unpickler stumbles over
            log.info("training starts again, %s is damaged: %s", path.name, error)
            return
        self.student.module.load_state_dict(saved["student"])
        self.best_state = saved["best"]
        self.targets = dict(zip(saved["known"], saved["targets"], strict=True))
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        self.progressed = Progressed(**saved["progressed"])
        log.info("resumed at step %d", self.progressed.step)


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
