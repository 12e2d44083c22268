"""Whether ONNX and torch agree, on models with several outputs."""

import numpy as np
import pytest
import torch
from onnx import parser

from compress.config.export import ExportConfig
from compress.errors import GateError
from compress.export.parity import check_parity, parity
from compress.stages.result import read_result


class Twice:
    """y = 2 x, and z = -x in another shape."""

    input_names = ("x",)
    output_names = ("y", "z")

    def batches(self, examples, size):
        for start in range(0, len(examples), size):
            yield {"x": torch.from_numpy(examples[start : start + size])}

    def at_limits(self, examples):
        return [], {}

    def outputs(self, inputs):
        return {"y": 2 * inputs["x"], "z": -inputs["x"].unsqueeze(1)}


EXAMPLES = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)


def graph_of(folder, nodes, outputs="float[n, 4] y, float[n, 1, 4] z"):
    text = f"""<ir_version: 8, opset_import: ["" : 18]>
    tiny (float[n, 4] x) => ({outputs}) <int64[1] axis = {{1}}> {{ y = Add (x, x) {nodes} }}"""
    path = folder / "graph.onnx"
    path.write_bytes(parser.parse_model(text).SerializeToString())
    return path


def test_all_outputs_agree(tmp_path):
    path = graph_of(tmp_path, "minus = Neg (x) z = Unsqueeze (minus, axis)")
    numbers = parity(Twice(), path, EXAMPLES, "none")
    largest = pytest.approx(2 * np.abs(EXAMPLES).max())
    same = {"max_abs_diff": 0, "largest_output": largest, "min_cosine": pytest.approx(1)}
    same |= {"same_largest": 1, "examples": 9}
    assert numbers == same


def test_the_second_output_alone_is_wrong(tmp_path):
    path = graph_of(tmp_path, "root = Abs (x) z = Unsqueeze (root, axis)")
    numbers = parity(Twice(), path, EXAMPLES, "none")
    assert numbers["max_abs_diff"] == pytest.approx(2 * EXAMPLES.max())
    with pytest.raises(GateError, match="does not compute"):
        check_parity(numbers, ExportConfig(), tmp_path, "none")
    assert read_result(tmp_path).gates[0].numbers == numbers


def test_a_second_output_that_is_missing(tmp_path):
    path = graph_of(tmp_path, "minus = Neg (x)", outputs="float[n, 4] y")
    with pytest.raises(
        GateError, match=r"other inputs or outputs than the model\n  found:   x -> y\n  allowed: x -> y, z"
    ):
        parity(Twice(), path, EXAMPLES, "none")


def test_a_second_output_that_is_always_the_same(tmp_path):
    path = graph_of(
        tmp_path,
        "one = CastLike (axis, x) flat = Min (x, one) same = Max (flat, one) z = Unsqueeze (same, axis)",
    )
    with pytest.raises(GateError, match="the same output z for every input"):
        parity(Twice(), path, EXAMPLES, "none")
