"""What every int8 option does after the quantizer: leave layers out, correct biases, and prove the result."""

from pathlib import Path

import onnx

from compress.config.evaluate import EvaluateConfig
from compress.config.quantize import Int8Dynamic, Int8Static
from compress.graph import graph_path
from compress.quantize import coverage, goals, sensitivity, sqnr
from compress.quantize.activations import EXAMPLES, calibration_feeds
from compress.quantize.bias import correct_bias


def finish(
    config: Int8Dynamic | Int8Static,
    quantized: onnx.ModelProto,
    reference: onnx.ModelProto,
    checkpoint: Path,
    splits: Path,
    out: Path,
    evaluate: EvaluateConfig | None,
) -> None:
    """Write the graph, and note coverage, errors of layers and, with a goal, what was left out.

    `reference` is the float graph that the quantizer got. Raises GateError when too little became integer
    or a layer broke.
    """
    feeds = calibration_feeds(checkpoint, splits, EXAMPLES)

    def corrected(model: onnx.ModelProto) -> onnx.ModelProto:
        return correct_bias(model, reference, feeds) if config.bias_correction else model

    left_out: list[str] = []
    if config.min_cosine is None and config.max_drop is None:
        quantized = corrected(quantized)
    else:
        select = goals.select_feeds(checkpoint, splits)
        rounded = sensitivity.int8(quantized, reference, select, corrected)
        quantized, left_out = goals.keep_goal(
            config, rounded, reference, select, checkpoint, splits, out, evaluate
        )
    target = graph_path(out)
    onnx.save(quantized, target)
    coverage.check(coverage.measure(target, config.exclude, left_out), config.min_coverage, out)
    some = list(sensitivity.spread(feeds, sqnr.TEXTS))
    sqnr.check(sqnr.measure(reference, quantized, some), config.min_sqnr_db, len(some), out)
