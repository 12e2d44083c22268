"""Quality of an ONNX file on held-out data, with an interval on every number."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from compress.config.data import Split
from compress.config.evaluate import EvaluateConfig
from compress.data import HeldOut, load_splits
from compress.graph.files import sha256_graphs
from compress.metrics.quality import Outputs, Scored, save_quality
from compress.registry import module_of
from compress.tasks import open_processor
from compress.tasks.text.processor import TextProcessor


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
    dense = Scored(graph, checkpoint, out)
    metrics_of(config).score(config, dense, dense, HeldOut(load_splits(splits), split, samples))


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
    there: Outputs | None = None,
) -> None:
    """Score the graphs in `graph`, unless they are the dense ones in `baseline`, and compare both.

    `student` and `checkpoint` are the checkpoints that they were exported from, `scores` what `score` stored
    of the dense one. The folder `out` then holds `quality.json` (`load_quality`) and `scores.npz`, numbers by
    example. `there` runs the graphs, those of the dense model too, which is compared with itself here.
    """
    metrics, held_out = metrics_of(config), HeldOut(load_splits(splits), split, samples)
    model = dense = Scored(baseline, checkpoint, scores)
    itself = sha256_graphs(graph) == sha256_graphs(baseline)
    if there is not None or not itself:
        model = Scored(graph, student, out, there)
        metrics.score(config, model, dense, held_out)
    quality, by_example = metrics.compare(config, model, dense, held_out)
    np.savez(out / "scores.npz", allow_pickle=False, **by_example)
    processor = open_processor(checkpoint)
    if itself and isinstance(processor, TextProcessor):
        quality = replace(quality, cut=processor.count_cut(held_out.part.examples))
    save_quality(quality, out)


def metrics_of(config: EvaluateConfig) -> Any:
    """The module of a task that scores one model and compares two."""
    return import_module(str(module_of(config)))
