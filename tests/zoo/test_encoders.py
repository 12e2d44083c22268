"""Encoders are read as sentence-transformers reads them, and so is what ships, by its card's code."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from compress import tasks
from compress.config.model import EncoderModel
from compress.errors import ModelError
from tests.zoo.encoders import CASES, REFUSED

TEXTS = [
    "The cat sits on the mat.",
    "A LETTER to the Café of Jörg: 日本語!",
    "a",
    " ".join(["the dog and a naïve letter,"] * 60),
    " ".join(["the dog and a naïve letter,"] * 59 + ["a strasse"]),
]


def imported(make, folder):
    make(folder / "published")
    tasks.import_model(EncoderModel(source=f"path:{folder / 'published'}"), folder / "out")
    return tasks.load(folder / "out")


def by_the_card(encoder, monkeypatch):
    """What the card's code computes of TEXTS, with a session that runs the module, and what it prints."""

    class Session:
        def __init__(self, path):
            assert path == "model.onnx"

        def get_inputs(self):
            return [SimpleNamespace(name=name) for name in encoder.input_names]

        def run(self, outputs, feeds):
            with torch.no_grad():
                found = encoder.outputs({name: torch.tensor(each) for name, each in feeds.items()})
            return [found[name].numpy() for name in outputs]

    code = json.loads((encoder.folder / "summary.json").read_text())["card"]["example_code"]
    line = next(line for line in code.splitlines() if line.startswith('texts = ["'))
    printed = []
    monkeypatch.setattr("onnxruntime.InferenceSession", Session)
    monkeypatch.chdir(encoder.folder)
    names = {"print": printed.append}
    exec(compile(code.replace(line, f"texts = {TEXTS!r}"), "card", "exec"), names)
    return names["embeddings"], *printed


@pytest.mark.parametrize("name", CASES)
def test_what_ships_embeds_as_sentence_transformers_does(name, tmp_path, monkeypatch):
    from sentence_transformers import SentenceTransformer

    encoder = imported(CASES[name], tmp_path)
    [gate] = json.loads((tmp_path / "out" / "stage.json").read_text())["gates"]
    assert gate["name"].startswith("read as sentence-transformers")
    stock = SentenceTransformer(
        str(tmp_path / "published"),
        device="cpu",
        local_files_only=True,
        model_kwargs={"dtype": torch.float32, "attn_implementation": "eager"},
    )
    stock.max_seq_length = min(stock.max_seq_length, encoder.processor.positions or 10**9)
    expected = stock.encode(TEXTS)
    found, similarity = by_the_card(encoder, monkeypatch)
    if not np.allclose(np.linalg.norm(found, axis=1), np.linalg.norm(expected, axis=1), atol=1e-5):
        expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=2e-5 * max(1, np.abs(expected).max()))
    np.testing.assert_allclose(similarity, stock.similarity(expected, expected), atol=1e-3)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_is_refused_by_name(name, tmp_path):
    make, words = REFUSED[name]
    with pytest.raises(ModelError, match=words):
        imported(make, tmp_path)
