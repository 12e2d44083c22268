"""Quality of an ONNX file on held-out data, with an interval on every number."""

from pathlib import Path

from compress.config import EvaluateConfig, PairSplit
from compress.evaluate import image_classification as _images  # noqa: F401  registers itself
from compress.evaluate import sentence_similarity as _similarity  # noqa: F401  likewise
from compress.evaluate.quality import Quality, load_quality
from compress.evaluate.statistics import holm, noninferior, noninferiority_p
from compress.registry import implementation

__all__ = [
    "Quality",
    "evaluate",
    "evaluate_select",
    "holm",
    "load_quality",
    "noninferior",
    "noninferiority_p",
]


def evaluate(
    config: EvaluateConfig,
    graph: Path,
    baseline: Path,
    checkpoint: Path,
    splits: Path,
    out: Path,
    split: PairSplit = PairSplit.test,
) -> None:
    """Evaluate `graph/model.onnx` beside the dense `baseline/model.onnx`, as `config` says.

    The folder `out` then holds `quality.json` (`load_quality`) and the scores of every example.
    """
    name = "model.onnx"
    implementation(config)(config, graph / name, baseline / name, checkpoint, splits, out, split)


def evaluate_select(
    config: EvaluateConfig,
    samples: int | None,
    graph: Path,
    baseline: Path,
    checkpoint: Path,
    splits: Path,
    out: Path,
) -> None:
    """The same on the split for choosing; `samples` limits the texts, and the pairs of each set."""
    name = "model.onnx"
    implementation(config)(
        config, graph / name, baseline / name, checkpoint, splits, out, PairSplit.select, samples
    )
