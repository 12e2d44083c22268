"""Distillation from the dense model, as the task of the model does it."""

from pathlib import Path

from compress.config.recover import Distill
from compress.tasks import part


def distill(config: Distill, student: Path, teacher: Path, splits: Path, out: Path, scratch: Path) -> None:
    """Write the best student seen on the select split, and note the curve.

    Raises GateError when the loss is not finite.
    """
    part("compress.tasks.*.training", student).distill(config, student, teacher, splits, out, scratch)
