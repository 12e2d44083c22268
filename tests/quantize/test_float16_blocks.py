"""4-bit products among 16-bit floats: small, near, and what the codes say."""

from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from compress.config.quantize import Float16Blocks
from compress.errors import GateError
from compress.graph.session import open_session
from compress.graph.surgery import attributes
from compress.graph.weights import Weights
from compress.quantize import quantize
from compress.quantize.blocks import in_blocks
from compress.quantize.float16 import in_float16, prepared
from compress.quantize.float16_blocks import in_blocks_of, products_of, put
from compress.schema.quantization import Coverage
from compress.stages.result import read_result


def decoded(model, node):
    """(inputs, outputs) of a MatMulNBits, by numpy from its bytes."""
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    codes, scales, zeros = (tensors[name] for name in node.input[1:4])
    sizes = attributes(node)
    assert scales.dtype == np.float16
    numbers, origins = (np.stack([each & 15, each >> 4], -1) for each in (codes, zeros))
    origins = origins.reshape(len(zeros), -1)[:, : scales.shape[1], None]
    steps = numbers.reshape(*codes.shape[:2], -1).astype(int) - origins
    return (steps * scales.astype(np.float32)[..., None]).reshape(len(codes), -1)[:, : sizes["K"]].T


def test_an_encoder(quantized, graphs, cosine):
    out = quantized(Float16Blocks())
    model, before = (onnx.load(folder / "model.onnx") for folder in (out, graphs()))
    onnx.checker.check_model(model)
    products = [node for node in model.graph.node if node.op_type == "MatMulNBits"]
    assert len(products) == 12
    whole = {node.output[0]: node.input[1] for node in before.graph.node if node.op_type == "MatMul"}
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in before.graph.initializer}
    for node in products:  # steps of a fifteenth of what a block spans; GPTQ may go further than the next
        expected = weights[whole[node.output[0]]]
        assert np.abs(decoded(model, node) - expected).max() < np.ptp(expected) / 15 * 2.5
    assert Counter(t.data_type for t in model.graph.initializer if len(t.dims) > 2) == {TensorProto.UINT8: 12}
    assert cosine(out / "model.onnx") > 0.97
    noted = read_result(out)
    assert noted.fact("coverage", Coverage).coverage_macs == 1.0
    assert [passed.name for passed in noted.gates] == ["integer coverage", "near the float graph"]


def model_of(weight):
    nodes = [
        helper.make_node("Relu", ["x"], ["h"], "relu"),
        helper.make_node("MatMul", ["h", "w"], ["y"], "product"),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])
        for name, width in zip("xy", weight.shape, strict=True)
    ]
    tensors = [numpy_helper.from_array(weight, "w")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.fixture
def one_product():
    """A matrix of 40 inputs, no multiple of 16, and inputs of which some go together."""
    random = np.random.default_rng(0)
    weight = random.standard_normal((40, 24)).astype(np.float32)
    mixed = (
        random.standard_normal((40, 40))
        @ np.diag(np.linspace(0.01, 2, 40))
        @ random.standard_normal((40, 40))
    )
    return model_of(weight), weight, (random.standard_normal((2000, 40)) @ mixed).astype(np.float32) / 10


def test_the_runtime_computes_what_the_codes_say(one_product):
    model, _, inputs = one_product
    half = in_float16(prepared(model))
    put(half, dict(in_blocks_of(model, products_of(Weights(model.graph, "")), [{"x": inputs}], 16)))
    (node,) = (node for node in half.graph.node if node.op_type == "MatMulNBits")
    (found,) = open_session(half.SerializeToString()).run(None, {"x": inputs[:8]})
    expected = np.maximum(inputs[:8].astype(np.float16), 0).astype(np.float32) @ decoded(half, node)
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


def test_rounding_goes_by_what_the_product_reads(one_product):
    """Against rounding to nearest with the best range of each block."""
    model, weight, inputs = one_product
    (blocks,) = dict(in_blocks_of(model, products_of(Weights(model.graph, "")), [{"x": inputs}], 16)).values()
    nearest = in_blocks(torch.from_numpy(weight.T.copy()), 4, 16, clip=True)
    read = np.maximum(inputs, 0)
    ours, plain = (
        np.square(read @ (rounded.weight().numpy().T - weight)).sum() for rounded in (blocks, nearest)
    )
    assert ours < 0.7 * plain


def test_what_is_excluded_stays_in_16_bits(quantized):
    out = quantized(Float16Blocks(exclude=[r"layer\.1/output"], min_coverage=0.5))
    assert read_result(out).fact("coverage", Coverage).coverage_macs == 1 - 2048 / 16384
    model = onnx.load(out / "model.onnx")
    (left,) = (
        node for node in model.graph.node if node.op_type == "MatMul" and "layer.1/output" in node.name
    )
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert kinds[left.input[1]] == TensorProto.FLOAT16


def test_a_net_of_convolutions_is_refused(image_graphs, image_checkpoints, image_splits_folder, tmp_path):
    with pytest.raises(GateError, match="too little of the model became integer"):
        quantize(
            Float16Blocks(),
            (),
            image_graphs["resnet"],
            image_checkpoints["resnet"],
            image_splits_folder,
            tmp_path,
        )


def test_a_vit(image_graphs, image_checkpoints, image_splits_folder, tmp_path):
    config = Float16Blocks(block_size=16, min_coverage=0.5, min_cosine=0.5)
    quantize(config, (), image_graphs["vit"], image_checkpoints["vit"], image_splits_folder, tmp_path)
    assert (
        read_result(tmp_path).fact("coverage", Coverage).coverage_macs > 0.79
    )  # all but its first convolution and the classifier
