"""Quality of an ONNX file on held-out data, with an interval on every number."""

from pathlib import Path

from compress.config.data import Split
from compress.config.evaluate import EvaluateConfig, LanguageModeling
from compress.evaluate.quality import Quality, load_quality
from compress.evaluate.statistics import holm, noninferior, noninferiority_p
from compress.registry import implementation

__all__ = [
    "Quality",
    "evaluate",
    "holm",
    "load_quality",
    "noninferior",
    "noninferiority_p",
]


def evaluate(
    config: EvaluateConfig,
    graph: Path,
    baseline: Path,
    student: Path,
    checkpoint: Path,
    splits: Path,
    out: Path,
    split: Split = Split.test,
    samples: int | None = None,
) -> None:
    """Evaluate `graph/model.onnx` beside the dense `baseline/model.onnx`, as `config` says.

    `student` and `checkpoint` are the checkpoints that they were exported from. The folder `out` then holds
    `quality.json` (`load_quality`) and the scores of every example.
    """
    name = "model.onnx"
    # Only of a language model pruning may change the tokenizer.
    own = {"student": student} if isinstance(config, LanguageModeling) else {}
    implementation(config)(
        config, graph / name, baseline / name, checkpoint, splits, out, split, samples, **own
    )
