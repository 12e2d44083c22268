"""Get quality back after pruning; train what pruning starts from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.config.recover import RecoverConfig, TrainConfig
from compress.registry import implementation


def recover(
    config: RecoverConfig, student: Path, teacher: Path, splits: Path, out: Path, scratch: Path
) -> None:
    """Train the checkpoint `student` towards `teacher`; `scratch` keeps the progress of a killed run."""
    from compress.recover import distill, distill_logits, finetune  # noqa: F401  register themselves; take torch along

    implementation(config)(config, student, teacher, splits, out, scratch)


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
    from compress.recover import baseline  # noqa: F401  registers itself; takes torch along

    implementation(config)(config, builder, kwargs, facts, splits, out, scratch)
