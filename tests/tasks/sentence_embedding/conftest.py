"""A sentence encoder small enough to export in a test: token embeddings, mean pooling, normalisation."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from transformers import BertTokenizerFast

from compress.models.checkpoint import facts_of, write_facts
from tests.zoo.encoders import modules

WORDS = [f"w{i}" for i in range(60)]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    BertTokenizerFast(vocab={word: number for number, word in enumerate(words)}).save_pretrained(folder)
    modules(folder)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 16}')
    sizes = {"vocab_size": len(words), "max_position_embeddings": 200, "type_vocab_size": 2}
    config = json.dumps({"model_type": "bert", **sizes})
    (folder / "config.json").write_text(config)
    facts = {"task": "sentence_embedding", "source": "path:x", "base_model": "x", "license": "mit"}
    write_facts(facts_of(facts), folder)
    return folder


@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    """Writes an encoder whose token embeddings are `table` [65, hidden]; returns the file."""
    folder = tmp_path_factory.mktemp("models")

    def write(name: str, table: np.ndarray, inputs=("input_ids", "attention_mask")) -> Path:
        node = helper.make_node
        nodes = [
            node("Gather", ["table", "input_ids"], ["tokens"]),
            node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
            node("Unsqueeze", ["mask", "two"], ["weights"]),
            node("Mul", ["tokens", "weights"], ["masked"]),
            node("ReduceSum", ["masked", "one"], ["total"], keepdims=0),
            node("LpNormalization", ["total"], ["sentence_embedding"], axis=1, p=2),
        ]
        shape, pooled = ["batch", "tokens"], ["batch", table.shape[1]]
        graph = helper.make_graph(
            nodes,
            "encoder",
            [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in inputs],
            [helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, pooled)],
            [
                numpy_helper.from_array(table.astype(np.float32), "table"),
                numpy_helper.from_array(np.array([1]), "one"),
                numpy_helper.from_array(np.array([2]), "two"),
            ],
        )
        path = folder / f"{name}.onnx"
        path.parent.mkdir(exist_ok=True)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
        return path

    return write


@pytest.fixture(scope="session")
def table() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(65, 8))
