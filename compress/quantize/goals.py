"""What a quantized model has to keep: nearness to the float model's outputs, or the task's own metric."""

import tempfile
from dataclasses import replace
from pathlib import Path

import onnx

from compress.config.data import Split
from compress.config.evaluate import EvaluateConfig
from compress.config.quantize import Float16Blocks, Int8
from compress.data import HeldOut, load_splits
from compress.errors import ConfigError
from compress.graph import graph_path
from compress.metrics.quality import Quality, Scored
from compress.quantize.activations import Feeds
from compress.quantize.sensitivity import TEXTS, Goal, Rounded, leave_out, mean_cosine, run
from compress.stages.result import write_result
from compress.tasks import open_processor, part

_RESAMPLES = 100  # of intervals that nobody reads


def select_feeds(checkpoint: Path, splits: Path) -> Feeds:
    """The first examples of select, one a feed."""
    examples = load_splits(splits).select.examples[:TEXTS]
    return list(open_processor(checkpoint).batches(examples, 1))


def keep_goal(
    config: Int8 | Float16Blocks,
    rounded: Rounded,
    reference: onnx.ModelProto,
    feeds: Feeds,
    checkpoint: Path,
    splits: Path,
    out: Path,
    evaluate: EvaluateConfig | None,
) -> tuple[onnx.ModelProto, list[str]]:
    """The graph that keeps what `config` asks for, and the nodes that stay in float for it, noted in
    `out/stage.json`. `evaluate` tells the metric that `max_drop` is about."""
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        if config.max_drop is None:
            goal, examples = near(reference, feeds, config.min_cosine or 0.0), len(feeds)
        else:
            assert evaluate is not None  # the pipeline tells it wherever `max_drop` is set
            folder = Path(scratch)
            onnx.save(reference, graph_path(folder))
            goal = task_metric(evaluate, config.max_drop, checkpoint, splits, folder)
            examples = len(load_splits(splits).select.examples)
        graph, report = leave_out(rounded, goal, config.min_coverage, examples)
    write_result(out, facts={"sensitivity": report})
    return graph, [layer.node for layer in report.layers if layer.left_out]


def near(reference: onnx.ModelProto, feeds: Feeds, min_cosine: float) -> Goal:
    """Outputs that point where the float graph's do."""
    expected = run(reference, feeds)
    return Goal(floor=min_cosine, score=lambda graph: mean_cosine(run(graph, feeds), expected))


def task_metric(
    evaluate: EvaluateConfig, max_drop: float, checkpoint: Path, splits: Path, reference: Path
) -> Goal:
    """The task's primary metric on the select split drops by at most the share `max_drop` of the float
    graph's in the folder `reference`, which also holds what graphs are scored in.

    It is the drop that was measured, without its interval: the verdict on the test split counts that.
    Raises ConfigError where the float graph's metric is 0, so that there is no relative drop.
    """
    evaluate = replace(evaluate, resamples=_RESAMPLES)
    metrics = part("compress.tasks.*.metrics", checkpoint)
    held_out = HeldOut(load_splits(splits), Split.select, None)
    dense = Scored(reference, checkpoint, reference)
    scratch = reference / "tried"
    scratch.mkdir()

    def judged(small: Scored) -> Quality:
        metrics.score(evaluate, small, dense, held_out)
        quality, _ = metrics.compare(evaluate, small, dense, held_out)
        return quality  # type: ignore[no-any-return]

    whole = judged(dense)
    metric, scale = whole.primary, abs({**whole.quality, **whole.fidelity}[whole.primary].value)
    if not scale > 0:
        raise ConfigError(
            f"{metric} of the float graph is {scale:g} on select: no relative drop can be computed",
            found=f"quantize.max_drop={max_drop:g}",
            next="another evaluate.primary, or more select examples",
        )

    def score(graph: onnx.ModelProto) -> float:
        onnx.save(graph, graph_path(scratch))
        return -float(judged(Scored(scratch, checkpoint, scratch)).drop_from_dense[metric].value) / scale

    return Goal(floor=-max_drop, score=score, metric=metric)
