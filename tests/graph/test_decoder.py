"""A language model step by step, against numpy."""

import os

import numpy as np
import pytest
from onnx import TensorProto, helper

from compress.errors import ModelError
from compress.graph.decoder import Decoder
from compress.runner.attention import SWITCH


@pytest.mark.parametrize("cuts", [[], [1, 2, 3, 4, 5, 6, 7, 8], [3], [2, 7]])
@pytest.mark.parametrize(
    ("capacity", "at_once", "plain"), [(9, None, "1"), (4096, None, "0"), (8192, 512, "1"), (16384, 512, "0")]
)
def test_pieces_give_what_the_whole_gives(tmp_path, tiny_lm, cuts, capacity, at_once, plain):
    """By onnxruntime's plain and its flash attention, which what a call may hold decides on."""
    path = tiny_lm.write(tmp_path / "model.onnx")
    decoder = Decoder(path, threads=1, capacity=capacity, at_once=at_once)
    assert os.environ[SWITCH] == plain
    assert decoder.fused
    ids = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5])
    for _ in range(2):  # the second time over what the first one left in the buffers
        found = np.concatenate([decoder.run(piece) for piece in np.split(ids, cuts)])
        np.testing.assert_allclose(found, tiny_lm.logits(ids), rtol=1e-4, atol=1e-4)
        decoder.reset()


def test_another_continuation_of_the_same_beginning(tmp_path, tiny_lm):
    decoder = Decoder(tiny_lm.write(tmp_path / "model.onnx"), threads=1, capacity=7)
    decoder.run(np.array([3, 1, 4, 9, 9, 9, 9]))
    decoder.rewind(3)
    found = decoder.run(np.array([1, 5]))
    np.testing.assert_allclose(found, tiny_lm.logits(np.array([3, 1, 4, 1, 5]))[3:], rtol=1e-4, atol=1e-4)


def test_another_continuation_in_a_graph_that_gives_a_longer_cache(language_graphs):
    decoder = Decoder(language_graphs("llama", False) / "model.onnx", threads=1)
    assert not decoder.fused
    expected = decoder.run(np.array([3, 1, 4, 1, 5]))
    decoder.reset()
    decoder.run(np.array([3, 1, 4, 9, 9, 9, 9]))
    decoder.rewind(3)
    assert {states.shape[2] for states in decoder.cache.values()} == {3}
    np.testing.assert_allclose(decoder.run(np.array([1, 5])), expected[3:], rtol=1e-4, atol=1e-4)


def test_a_full_cache_is_an_error(tmp_path, tiny_lm):
    decoder = Decoder(tiny_lm.write(tmp_path / "model.onnx"), threads=1, capacity=4)
    decoder.run(np.arange(4))
    with pytest.raises(ModelError, match="5 tokens"):
        decoder.run(np.arange(1))


def test_a_graph_without_a_cache_is_no_language_model(tmp_path):
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "logits")]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["logits"])], "g", values[:1], values[1:])
    opsets = [helper.make_opsetid("", 18)]
    path = tmp_path / "model.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())
    with pytest.raises(ModelError, match="no language model"):
        Decoder(path)
