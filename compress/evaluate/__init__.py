"""Quality of an ONNX file on held-out data, with an interval on every number."""

from importlib import import_module
from pathlib import Path

from compress.config.data import Split
from compress.config.evaluate import EvaluateConfig
from compress.evaluate.quality import Dense, Quality, load_quality
from compress.evaluate.statistics import holm, noninferior, noninferiority_p
from compress.registry import implementation, module_of

__all__ = [
    "Quality",
    "evaluate",
    "holm",
    "load_quality",
    "noninferior",
    "noninferiority_p",
    "score",
]


def score(
    config: EvaluateConfig,
    split: Split,
    samples: int | None,
    graph: Path,
    checkpoint: Path,
    splits: Path,
    out: Path,
) -> None:
    """Store what the dense model says of every example of `split`; `evaluate` compares others with it.

    `samples` limits the examples, evenly spread.
    """
    import_module(str(module_of(config))).score(config, graph, checkpoint, splits, out, split, samples)


def evaluate(
    config: EvaluateConfig,
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
    """Evaluate `graph/model.onnx` beside the dense `baseline/model.onnx`, as `config` says.

    `student` and `checkpoint` are the checkpoints that they were exported from, `scores` what `score` stored
    of the dense one. The folder `out` then holds `quality.json` (`load_quality`) and the scores of every
    example.
    """
    dense = Dense(baseline, checkpoint, scores)
    implementation(config)(config, dense, graph, student, splits, out, split, samples)
