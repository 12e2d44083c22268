"""What every int8 option does after the quantizer: leave layers out, correct biases, and prove the result."""

from pathlib import Path

import onnx

from compress.config.quantize import Int8Dynamic, Int8Static
from compress.data import load_splits
from compress.graph import graph_path
from compress.quantize import coverage, sensitivity, sqnr
from compress.quantize.activations import EXAMPLES, calibration_feeds
from compress.quantize.bias import correct_bias
from compress.stages.result import write_result
from compress.tasks import open_processor


def finish(
    config: Int8Dynamic | Int8Static,
    quantized: onnx.ModelProto,
    reference: onnx.ModelProto,
    checkpoint: Path,
    splits: Path,
    out: Path,
) -> None:
    """Write the graph, and note coverage, errors of layers and, with `min_cosine`, what was left out.

    `reference` is the float graph that the quantizer got. Raises GateError when too little became integer
    or a layer broke.
    """
    feeds = calibration_feeds(checkpoint, splits, EXAMPLES)

    def corrected(model: onnx.ModelProto) -> onnx.ModelProto:
        return correct_bias(model, reference, feeds) if config.bias_correction else model

    left_out: list[str] = []
    if config.min_cosine is None:
        quantized = corrected(quantized)
    else:
        examples = load_splits(splits).select.examples[: sensitivity.TEXTS]
        select = list(open_processor(checkpoint).batches(examples, 1))
        quantized, report = sensitivity.leave_out(
            quantized, reference, select, config.min_cosine, config.min_coverage, corrected
        )
        write_result(out, facts={"sensitivity": report})
        left_out = [layer.node for layer in report.layers if layer.left_out]
    target = graph_path(out)
    onnx.save(quantized, target)
    coverage.check(coverage.measure(target, config.exclude, left_out), config.min_coverage, out)
    some = list(sensitivity.spread(feeds, sqnr.TEXTS))
    sqnr.check(sqnr.measure(reference, quantized, some), config.min_sqnr_db, len(some), out)
