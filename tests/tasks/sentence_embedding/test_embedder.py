import json

import numpy as np
import onnx
import pytest

from compress.errors import GateError, ModelError
from compress.tasks.sentence_embedding.embedder import embed
from compress.tasks.sentence_embedding.processor import open_processor

TEXTS = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9", "w10 w11", "w1 w2 w3 w4 w5 w6 w7"]


def _expected(table, text, limit=16):
    ids = [2, *(int(word[1:]) + 5 for word in text.split()[: limit - 2]), 3]
    total = table.astype(np.float32)[ids].sum(axis=0)
    return total / np.linalg.norm(total)


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_rows_are_in_the_order_of_the_texts(encoder, checkpoint, table, batch_size):
    processor = open_processor(checkpoint)
    found = embed(encoder("plain", table), processor, TEXTS, batch_size=batch_size, threads=1)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [_expected(table, text) for text in TEXTS], atol=1e-5)


def test_a_text_does_not_depend_on_its_neighbours_in_an_int8_model(encoder, checkpoint, table, tmp_path):
    processor = open_processor(checkpoint)
    model = _with_int8_rounding(encoder("rounded", table), tmp_path / "rounded.onnx")
    alone = np.concatenate([embed(model, processor, [text], threads=1) for text in TEXTS])
    together = embed(model, processor, TEXTS, threads=1)
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(embed(model, processor, TEXTS[::-1], threads=1), alone[::-1])
    batched = embed(model, processor, TEXTS, batch_size=5, threads=1)
    assert np.abs(batched - alone).max() > 1e-4  # the model is one where it matters


def _with_int8_rounding(source, target):
    """One dynamic scale for the whole tensor of token embeddings, as dynamic int8 has."""
    model = onnx.load(source)
    nodes = list(model.graph.node)
    rounding = [
        onnx.helper.make_node("DynamicQuantizeLinear", ["masked"], ["q", "scale", "zero"]),
        onnx.helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["rounded"]),
    ]
    nodes[4].input[0] = "rounded"
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:4], *rounding, *nodes[4:]])
    onnx.save(model, target)
    return target


def test_long_texts_are_cut_at_the_checkpoints_length(encoder, checkpoint, table):
    long = " ".join(f"w{i}" for i in range(40))
    found = embed(encoder("plain", table), open_processor(checkpoint), [long, "w1"], threads=1)
    np.testing.assert_allclose(found[0], _expected(table, long), atol=1e-5)


def test_texts_are_cut_where_the_card_says(encoder, checkpoint, table, copy_of):
    """Without a declared length at the tokenizer's, else at the last position, as in calibration."""
    folder = copy_of(checkpoint)
    (folder / "sentence_bert_config.json").unlink()
    long = " ".join(f"w{i % 60}" for i in range(300))
    for declared, length in ((None, 200), (150, 150)):
        if declared is not None:
            path = folder / "tokenizer_config.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), "model_max_length": declared}))
        processor = open_processor(folder)
        assert processor.max_length == length
        found = embed(encoder("plain", table), processor, [long, "w1"], threads=1)
        np.testing.assert_allclose(found[0], _expected(table, long, length), atol=1e-5)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda table: np.full_like(table, np.nan), "not finite"),
        (lambda table: np.where(np.arange(65)[:, None] == 9, np.inf, table), "1 of 5 texts|2 of 5 texts"),
        (lambda table: np.ones_like(table), "the same embedding"),
    ],
)
def test_a_broken_model_stops_at_the_gate(encoder, checkpoint, table, damage, message):
    model = encoder("damaged", damage(table))
    with pytest.raises(GateError, match=message):
        embed(model, open_processor(checkpoint), TEXTS, threads=1)


def test_a_single_text_may_have_any_embedding(encoder, checkpoint, table):
    model = encoder("constant", np.ones_like(table))
    assert embed(model, open_processor(checkpoint), ["w1", "w1"], threads=1).shape == (2, 8)


def test_a_file_that_is_no_sentence_encoder(encoder, checkpoint, table, tmp_path):
    processor = open_processor(checkpoint)
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(ModelError, match=r"cannot load text\.onnx"):
        embed(tmp_path / "text.onnx", processor, TEXTS)
    model = onnx.load(encoder("plain", table))
    model.graph.output[0].name = model.graph.node[-1].output[0] = "logits"
    onnx.save(model, tmp_path / "logits.onnx")
    with pytest.raises(ModelError, match="output sentence_embedding"):
        embed(tmp_path / "logits.onnx", processor, TEXTS)
