"""What is taken out of an exported graph, and where its weights lie afterwards."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.export.strip import strip

WEIGHT = np.arange(1024, dtype=np.float32).reshape(32, 32)


@pytest.fixture(params=[None, "exporters.name"], ids=["inside", "outside"])
def path(request, tmp_path):
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "n", doc_string="/home/me/exporter.py:7")
    node.metadata_props.add(key="namespace", value="/home/me")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 32]) for name in "xy"]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [numpy_helper.from_array(WEIGHT, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    target = tmp_path / "model.onnx"
    if request.param:
        onnx.save(model, target, save_as_external_data=True, location=request.param, size_threshold=0)
    else:
        onnx.save(model, target)
    return target


@pytest.mark.parametrize("beside", [False, True])
def test_the_same_numbers_without_what_the_exporter_says_of_itself(path, beside, tmp_path):
    strip(path, weights_beside=beside)
    assert b"/home/me" not in path.read_bytes()
    session = onnxruntime.InferenceSession(path)
    x = np.ones((1, 32), np.float32)
    np.testing.assert_allclose(session.run(None, {"x": x})[0], x @ WEIGHT)
    if beside:
        assert sorted(each.name for each in tmp_path.iterdir()) == ["model.onnx", "model.onnx_data"]
