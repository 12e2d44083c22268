"""The rewritten graph against the plain one, on padded real texts."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from compress import tasks
from compress.config.prune import TransformerPrune
from compress.export.attempt import attempt
from compress.export.fuse import _use_standard_attention, fuse
from compress.export.optimum import _export
from compress.export.strip import strip
from compress.prune.width import apply, cuts_of


def plain_and_fused(encoder, folder):
    plain, fused = folder / "plain.onnx", folder / "fused.onnx"
    with attempt():
        _export(encoder, 18, plain)
    strip(plain)
    fused.write_bytes(plain.read_bytes())
    return plain, fused, fuse(fused)


def operators(path):
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def embed(path, inputs):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})[0]


def check_equal(encoder, plain, fused, texts):
    for count in (1, 3, len(texts)):
        inputs = encoder.tokenize(texts[:count])
        with torch.no_grad():
            expected = encoder.module(**inputs)["sentence_embedding"].numpy()
        np.testing.assert_allclose(embed(plain, inputs), expected, atol=1e-5)
        np.testing.assert_allclose(embed(fused, inputs), expected, atol=1e-5)
    assert not inputs["attention_mask"].all()  # there was padding


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert"])
def test_attention_becomes_one_operator(name, checkpoints, splits, tmp_path):
    encoder = tasks.load(checkpoints[name])
    plain, fused, blocks = plain_and_fused(encoder, tmp_path)
    assert blocks == 2
    check_equal(encoder, plain, fused, splits.test.texts)
    after = operators(fused)
    assert after["Attention"] == after["Gelu"] == 2
    assert after["MatMul"] == operators(plain)["MatMul"] - 4 == 12
    assert not after["Softmax"]
    # Each residual sum is a Sum, which onnxruntime does not fuse into its slow kernel.
    assert after["Sum"] == after["LayerNormalization"] == 5
    assert not {"SkipLayerNormalization", "MultiHeadAttention", "EmbedLayerNormalization"} & set(after)
    onnx.checker.check_model(fused)


def test_mpnet_is_left_right_where_the_pattern_is_not_found(checkpoints, splits, tmp_path):
    encoder = tasks.load(checkpoints["mpnet"])
    plain, fused, blocks = plain_and_fused(encoder, tmp_path)
    assert blocks == 0
    check_equal(encoder, plain, fused, splits.test.texts)
    assert operators(fused)["Softmax"] == 2
    versions = {entry.version for entry in onnx.load(fused).opset_import if entry.domain in ("", "ai.onnx")}
    assert versions == {18}  # nothing needs a newer one


@pytest.mark.parametrize("gone", [([0, 3], [1, 2]), ([1], [0, 2, 3])])
@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert"])
def test_after_pruning_of_heads(name, gone, checkpoints, splits, tmp_path):
    """The inner size is no longer the hidden size, and may differ between layers."""
    encoder = tasks.load(checkpoints[name])
    cut = cuts_of(encoder.stack, TransformerPrune())[0]
    for index, heads in enumerate(gone):
        apply(cut, encoder.stack, index, torch.tensor([i for i in range(4) if i not in heads]), {}, 0.01)
    assert encoder.widths()["heads"] == tuple(4 - len(heads) for heads in gone)
    plain, fused, blocks = plain_and_fused(encoder, tmp_path)
    assert blocks == 2
    heads = [
        helper.get_node_attr_value(node, "q_num_heads")
        for node in onnx.load(fused).graph.node
        if node.op_type == "Attention"
    ]
    assert tuple(heads) == encoder.widths()["heads"]
    check_equal(encoder, plain, fused, splits.test.texts)


def test_eager_attention_stays_right_too(checkpoints, splits, tmp_path):
    encoder = tasks.load(checkpoints["bert"], attention="eager")
    plain, fused, _ = plain_and_fused(encoder, tmp_path)
    check_equal(encoder, plain, fused, splits.test.texts)


def block(inputs):
    """A graph of one MultiHeadAttention of onnxruntime with these inputs."""
    values = {name: np.ones(6, np.float32) for name in ("bias",)}
    node = helper.make_node(
        "MultiHeadAttention", inputs, ["out"], name="mha", domain="com.microsoft", num_heads=1
    )
    graph = helper.make_graph(
        [node],
        "block",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", "s", 2]) for name in "qkv"],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["b", "s", 2])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize(
    "inputs",
    [
        ["q", "k", "v"],
        ["q", "k", "v", "bias"],
        ["q", "k", "v", "", "mask"],
        ["q", "k", "v", "bias", "", "scores"],
    ],
)
def test_a_block_with_other_inputs_stays_as_it_is(inputs):
    model = block(inputs)
    assert _use_standard_attention(model) == 0
    assert model == block(inputs)
