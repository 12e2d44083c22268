"""Fetching what flows through a graph: right values, a feed at a time, the graph untouched."""

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from compress.quantize.activations import calibration_feeds, collect


def test_a_feed_a_text_without_padding(checkpoints, splits_folder, splits):
    feeds = calibration_feeds(checkpoints["bert"], splits_folder, 9)
    lengths = [len(text.replace(".", " .").split()) + 2 for text in splits.calibration.texts[:9]]
    assert sorted(feed["input_ids"].shape for feed in feeds) == sorted((1, length) for length in lengths)
    assert {name for feed in feeds for name in feed} == {"input_ids", "attention_mask", "token_type_ids"}
    assert {array.dtype for feed in feeds for array in feed.values()} == {np.dtype(np.int64)}
    assert all(feed["attention_mask"].all() for feed in feeds)


def model() -> onnx.ModelProto:
    return onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 18]>
        toy (float[1, n, 3] x) => (float[1, n, 3] y) {
            middle = Mul(x, x)
            shifted = Sub(middle, x)
            y = Exp(shifted)
        }"""
    )


@pytest.mark.parametrize("from_file", [True, False])
def test_values_of_inner_tensors(from_file, tmp_path):
    graph = model()
    onnx.save(graph, tmp_path / "model.onnx")
    before = graph.SerializeToString()
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.normal(size=(1, n, 3)).astype(np.float32)} for n in (2, 5)]
    asked = ["y", "shifted", "middle"]
    found = list(collect(tmp_path / "model.onnx" if from_file else graph, asked, feeds))
    assert graph.SerializeToString() == before
    assert [list(values) for values in found] == [asked, asked]
    reference = ReferenceEvaluator(graph)
    for feed, values in zip(feeds, found, strict=True):
        expected = reference.run(None, feed, intermediate=True)
        for name, value in values.items():
            np.testing.assert_allclose(value, expected[name], rtol=1e-6)


def test_a_tensor_that_is_not_there():
    with pytest.raises(ValueError, match="no node makes z"):
        list(collect(model(), ["y", "z"], []))
