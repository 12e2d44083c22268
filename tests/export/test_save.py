"""What is taken out of an exported graph, and where its weights lie afterwards."""

import numpy as np
import onnx_ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.export.save import save

WEIGHT = np.arange(1024, dtype=np.float32).reshape(32, 32)


def described():
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "n", doc_string="/home/me/exporter.py:7")
    node.metadata_props.add(key="namespace", value="/home/me")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 32]) for name in "xy"]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [numpy_helper.from_array(WEIGHT, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model.metadata_props.add(key="made by", value="/home/me")
    return onnx_ir.from_proto(model)


@pytest.mark.parametrize("beside", [False, True])
def test_the_same_numbers_without_what_the_exporter_says_of_itself(beside, tmp_path):
    path = tmp_path / "model.onnx"
    save(described(), path, beside=beside)
    assert b"/home/me" not in path.read_bytes()
    session = onnxruntime.InferenceSession(path)
    x = np.ones((1, 32), np.float32)
    np.testing.assert_allclose(session.run(None, {"x": x})[0], x @ WEIGHT)
    files = ["model.onnx", "model.onnx_data"] if beside else ["model.onnx"]
    assert sorted(each.name for each in tmp_path.iterdir()) == files
