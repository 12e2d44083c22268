"""The rewritten graph against the plain one and against torch, on padded real texts."""

from collections import Counter

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
import torch
from onnx import helper, parser

from compress import tasks
from compress.config.export import TorchExport
from compress.config.prune import TransformerPrune
from compress.export.simplify import flatten_attention, name_by_module, name_operators, protect_residual_sums
from compress.export.torch_onnx import write
from compress.prune.width import apply, cuts_of
from compress.tasks.base import Traced


def exported(encoder, path, fuse):
    inputs = encoder.example()
    axes = {name: {0: "batch_size", 1: "sequence_length"} for name in inputs}
    names = {"input_names": tuple(inputs), "output_names": encoder.output_names}
    write(Traced(module=encoder.module, inputs=inputs, axes=axes, **names), path, TorchExport(fuse=fuse))
    return path


def operators(path):
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def embed(path, inputs):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})[0]


def check_equal(encoder, path, texts):
    for count in (1, 3, len(texts)):
        inputs = encoder.tokenize(texts[:count])
        with torch.no_grad():
            expected = encoder.module(**inputs)["sentence_embedding"].numpy()
        np.testing.assert_allclose(embed(path, inputs), expected, atol=1e-5)
    assert not inputs["attention_mask"].all()  # there was padding


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("roberta", "distilbert")]


@pytest.mark.parametrize("name", ["bert", *SLOW])
def test_attention_splits_heads_itself(name, checkpoints, splits, tmp_path):
    encoder = tasks.load(checkpoints[name])
    plain = operators(exported(encoder, tmp_path / "plain.onnx", False))
    fused = exported(encoder, tmp_path / "fused.onnx", True)
    after = operators(fused)
    assert plain["Attention"] == after["Attention"] == after["Gelu"] == 2
    assert after["MatMul"] == plain["MatMul"] == 12
    assert plain["Transpose"] - after["Transpose"] == 8
    # Each residual sum is a Sum, which onnxruntime does not fuse into its slow kernel.
    assert after["Sum"] == after["LayerNormalization"] == 5
    check_equal(encoder, fused, splits.test.texts)
    onnx.checker.check_model(fused)


def test_scores_with_a_bias_stay_right(checkpoints, splits, tmp_path):
    encoder = tasks.load(checkpoints["mpnet"])
    check_equal(encoder, exported(encoder, tmp_path / "fused.onnx", True), splits.test.texts)


@pytest.mark.parametrize("name", ["bert", "distilbert"])
def test_after_pruning_of_heads(name, checkpoints, splits, tmp_path):
    """The inner size is no longer the hidden size, and differs between layers."""
    encoder = tasks.load(checkpoints[name])
    cut = cuts_of(encoder.stack, TransformerPrune())[0]
    for index, kept in enumerate(([1, 2], [0, 2, 3])):
        apply(cut, encoder.stack, index, torch.tensor(kept), {}, 0.01)
    fused = exported(encoder, tmp_path / "fused.onnx", True)
    attention = [node for node in onnx.load(fused).graph.node if node.op_type == "Attention"]
    assert [helper.get_node_attr_value(node, "q_num_heads") for node in attention] == [2, 3]
    check_equal(encoder, fused, splits.test.texts)


def test_nodes_are_named_by_their_module(checkpoints, tmp_path):
    graph = onnx.load(exported(tasks.load(checkpoints["bert"]), tmp_path / "m.onnx", True)).graph
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    assert "/backbone/encoder/layer.1/attention/self/query/MatMul" in names
    assert "/backbone/encoder/layer.0/output/LayerNorm/LayerNormalization" in names


SPLIT = """
    q1 = Reshape (q, four) q2 = Transpose <perm = [0, 2, 1, 3]> (q1)
    k1 = Reshape (k, four) k2 = Transpose <perm = [0, 2, 1, 3]> (k1)
    v1 = Reshape (v, four) v2 = Transpose <perm = [0, 2, 1, 3]> (v1)
    a = Attention (q2, k2, v2) t = Transpose <perm = [0, 2, 1, 3]> (a) y = Reshape (t, three)"""


def block(nodes, outputs="float[b, s, 8] y"):
    text = f"""<ir_version: 11, opset_import: ["" : 23]>
    tiny (float[b, s, 8] q, float[b, s, 8] k, float[b, s, 8] v) => ({outputs})
    <int64[4] four = {{0, 0, 2, 4}}, int64[3] three = {{0, 0, 8}}> {{ {nodes} }}"""
    return onnx_ir.from_proto(onnx.shape_inference.infer_shapes(parser.parse_model(text)))


def flattened(nodes, **outputs):
    graph = block(nodes, **outputs)
    flatten_attention(graph)
    return next(node for node in graph.graph if node.op_type == "Attention").inputs[0].name == "q"


@pytest.mark.parametrize(
    ("change", "flat"),
    [
        (("", ""), True),
        (("q2 = Transpose <perm = [0, 2, 1, 3]>", "q2 = Transpose <perm = [0, 2, 3, 1]>"), False),
        (
            (
                "t = Transpose <perm = [0, 2, 1, 3]> (a)",
                "n = Neg (a) t = Transpose <perm = [0, 2, 1, 3]> (n)",
            ),
            False,
        ),
        (("k1 = Reshape (k, four)", "k0 = Reshape (k, four) k1 = Neg (k0)"), False),
    ],
)
def test_only_the_whole_pattern_is_changed(change, flat):
    assert flattened(SPLIT.replace(*change)) == flat


def test_attention_that_something_else_reads_stays():
    assert not flattened(SPLIT + " z = Neg (a)", outputs="float[b, s, 8] y, float[b, 2, s, 4] z")


def test_a_sum_of_three_numbers_is_left():
    graph = block("s = Sum (q, k, v) y = LayerNormalization (s, w, w)".replace("(s, w, w)", "(s, q)"))
    protect_residual_sums(graph)
    name_by_module(graph)
    assert [node.name for node in graph.graph] == ["/Sum", "/LayerNormalization"]


def classifier(nodes):
    text = f"""<ir_version: 11, opset_import: ["" : 23]>
    tiny (float[b, 3, 4, 4] x) => (float[b, 3] y)
    <int64[2] axes = {{-1, -2}}, int64[2] rows = {{-1, 3}}, int64[2] channels = {{1, 2}}> {{ {nodes} }}"""
    graph = onnx_ir.from_proto(onnx.shape_inference.infer_shapes(parser.parse_model(text)))
    name_operators(graph)
    onnx.checker.check_model(onnx_ir.to_proto(graph))
    return [node.op_type for node in graph.graph]


def test_pooling_and_flattening_have_their_operators():
    whole = "m = ReduceMean <keepdims = 1> (x, axes) y = Reshape (m, rows)"
    assert classifier(whole)[0] == "GlobalAveragePool"
    assert classifier(whole.replace("axes", "channels"))[0] == "ReduceMean"
    assert classifier("y = ReduceMean <keepdims = 0> (x, axes)") == ["ReduceMean"]
