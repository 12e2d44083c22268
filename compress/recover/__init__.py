"""Get quality back after pruning; train what pruning starts from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.config.recover import RecoverConfig, TrainConfig
from compress.models import shipped_files
from compress.registry import implementation
from compress.stages.result import write_result


def recover(
    config: RecoverConfig, student: Path, teacher: Path, splits: Path, out: Path, scratch: Path
) -> None:
    """Train the checkpoint `student` towards `teacher`; `scratch` keeps the progress of a killed run."""
    implementation(config)(config, student, teacher, splits, out, scratch)
    write_result(out, ships=shipped_files(out))


def train_baseline(
    config: TrainConfig,
    builder: str,
    kwargs: Mapping[str, Any],
    facts: Mapping[str, str],
    splits: Path,
    out: Path,
    scratch: Path,
) -> None:
    """Train the net that `builder` makes of `kwargs`, from nothing; `scratch` as in `recover`."""
    implementation(config)(config, builder, kwargs, facts, splits, out, scratch)
    write_result(out, ships=shipped_files(out))
