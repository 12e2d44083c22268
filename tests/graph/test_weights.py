"""Constants of a graph: read where they lie, never overwritten."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from compress.graph.weights import Weights, is_external

VALUES = np.arange(600, dtype=np.float32).reshape(20, 30)


@pytest.fixture
def folder(tmp_path):
    """y = x flattened, times a matrix in a file of its own, behind another in the same file."""
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 18]>
        made (float[n, 20] x) => (float[n, 30] y) {
            flat = Flatten (x)
            y = MatMul (flat, w)
        }"""
    )
    for name, value in (("first", VALUES + 1), ("w", VALUES), ("few", VALUES[0].astype(np.int64))):
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    onnx.save(
        model, tmp_path / "model.onnx", save_as_external_data=True, location="data", size_threshold=1000
    )
    return tmp_path


@pytest.fixture
def weights(folder):
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    return Weights(model.graph, "_new", folder)


def test_values_in_external_data_are_read_where_they_lie(weights):
    assert is_external(weights.tensors["w"])
    np.testing.assert_array_equal(weights["w"], VALUES)
    np.testing.assert_array_equal(weights["first"], VALUES + 1)
    assert isinstance(weights["w"], np.memmap)
    assert not is_external(weights.tensors["few"])
    np.testing.assert_array_equal(weights["few"], np.arange(30))


def test_what_is_a_float_of_so_many_axes(weights):
    assert weights.has("w", 2)
    assert not weights.has("w", 1)
    assert not weights.has("few", 1)  # integers
    assert not weights.has("flat", 2)
    assert "w" in weights
    assert "flat" not in weights


def test_a_changed_weight_stands_beside_the_old_one(weights):
    assert [weights.put("w", VALUES * factor) for factor in (2, 3)] == ["w_new", "w_new_new"]
    assert weights.put("flat", VALUES[0]) == "flat_new"  # that name is a node's
    np.testing.assert_array_equal(weights["w"], VALUES)
    np.testing.assert_array_equal(weights["w_new_new"], VALUES * 3)
    assert [tensor.name for tensor in weights.graph.initializer][3:] == ["w_new", "w_new_new", "flat_new"]
