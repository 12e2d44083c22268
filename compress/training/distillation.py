"""What trainings that learn from a teacher share beside the loop."""

from abc import ABC
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from compress.config.recover import DistillLogits, FitText
from compress.errors import GateError
from compress.stages.result import write_result
from compress.tasks import Model
from compress.training.loop import Plan, Trainer, rise_and_fall


class Distillation(Trainer, ABC):
    """AdamW on `parameters`, gradients of length 1 at most, a loss that must stay finite."""

    def __init__(
        self,
        config: FitText | DistillLogits,
        student: Model,
        parameters: Iterable[nn.Parameter],
        beta2: float,
    ) -> None:
        self.parameters = list(parameters)
        optimizer = torch.optim.AdamW(
            self.parameters,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            betas=(0.9, beta2),
            fused=True,
        )
        plan = Plan(
            steps=config.steps,
            evaluate_every=config.evaluate_every,
            seed=config.seed,
            patience=config.patience,
            max_minutes=config.max_minutes,
        )
        super().__init__(
            student.module, optimizer, lambda step: rise_and_fall(step, config.steps, config.warmup), plan
        )

    def update(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        super().update()

    def backward(self, loss: Tensor, parts: int = 1) -> float:
        """Add the gradients of `loss`, that of one of the equal `parts` of a batch.

        Raises GateError when the loss is not finite.
        """
        if not torch.isfinite(loss):
            raise GateError(
                "the training loss is not finite",
                found=f"{float(loss.detach())} at step {self.history.step}",
                next=f"lower learning_rate, now {self.optimizer.defaults['lr']:g}",
            )
        (loss / parts).backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def write(self, student: Model, out: Path, **curves: list[float]) -> None:
        """The student, and how training went as the fact `recovery`; `curves`: an entry an evaluation."""
        history = asdict(self.history)
        del history["select"]
        step = f"distilled for {self.history.step} steps, {self.history.tokens / 1e6:.1f} M tokens"
        student.save(out, student.facts.after(step))
        write_result(out, facts={"recovery": {**history, **curves}})


def distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) of the softened answers, mean over the batch (Hinton et al. 2015)."""
    soft = nn.functional.log_softmax(student / temperature, 1)
    wanted = nn.functional.log_softmax(teacher / temperature, 1)
    return nn.functional.kl_div(soft, wanted, log_target=True, reduction="batchmean") * temperature**2
