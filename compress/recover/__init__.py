"""Get quality back after pruning."""

from pathlib import Path

from compress.config import RecoverConfig
from compress.recover import distill as _distill  # noqa: F401  registers itself
from compress.registry import implementation


def recover(
    config: RecoverConfig, student: Path, teacher: Path, splits: Path, out: Path, scratch: Path
) -> None:
    """Train the checkpoint `student` towards `teacher`; `scratch` keeps the progress of a killed run."""
    implementation(config)(config, student, teacher, splits, out, scratch)
