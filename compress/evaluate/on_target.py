"""Quality of what a target computes."""

from functools import partial
from pathlib import Path

from compress import evaluate as here
from compress.config.data import Split
from compress.config.evaluate import EvaluateConfig
from compress.config.target import TargetConfig
from compress.targets import open_target
from compress.targets.outputs import outputs


def evaluate(
    config: EvaluateConfig,
    target: TargetConfig,
    split: Split,
    samples: int | None,
    graph: Path,
    student: Path,
    baseline: Path,
    checkpoint: Path,
    scores: Path,
    splits: Path,
    out: Path,
) -> None:
    """Score what the graphs in `graph` give on the target, and compare it with what the dense ones give here.

    All else is as in `compress.evaluate.evaluate`. Raises BenchmarkError where the target cannot run them.
    """
    there = partial(outputs, open_target(target))
    here.evaluate(
        config, split, samples, graph, student, baseline, checkpoint, scores, splits, out, there=there
    )
