"""Get quality back after pruning."""

from pathlib import Path

from compress.config import RecoverConfig
from compress.registry import implementation


def recover(
    config: RecoverConfig, student: Path, teacher: Path, splits: Path, out: Path, scratch: Path
) -> None:
    """Train the checkpoint `student` towards `teacher`; `scratch` keeps the progress of a killed run."""
    from compress.recover import distill  # noqa: F401  registers itself; takes torch along

    implementation(config)(config, student, teacher, splits, out, scratch)
