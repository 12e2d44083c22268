import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from compress.graph.files import sha256_model, with_weights
from compress.system.disk import sha256_file


@pytest.fixture
def model(tmp_path):
    product = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 18]>
        made (float[n, 20] x) => (float[n, 30] y) { y = MatMul (x, w) }"""
    )
    product.graph.initializer.append(numpy_helper.from_array(np.ones((20, 30), np.float32), "w"))
    onnx.save(product, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.mark.parametrize("weights", ["model.onnx_data", "weights.bin"])
def test_a_models_digest_covers_the_weights_that_it_names(model, weights):
    assert sha256_model(model) == sha256_file(model)
    assert with_weights(model) == [model]
    onnx.save(onnx.load(model), model, save_as_external_data=True, location=weights, size_threshold=0)
    data = model.with_name(weights)
    model.with_name("model.onnx.bak").write_bytes(b"not of the model")
    assert with_weights(model) == [model, data]
    first = sha256_model(model)
    data.write_bytes(data.read_bytes()[::-1])
    assert len({first, sha256_file(model), sha256_model(model)}) == 3


def test_what_is_no_graph_is_a_file(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"not an onnx file")
    assert with_weights(tmp_path / "a.onnx") == [tmp_path / "a.onnx"]
