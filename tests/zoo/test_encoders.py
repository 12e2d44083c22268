"""Encoders are read as sentence-transformers reads them, and so is what ships, by its card's code."""

import json
import shutil

import numpy as np
import onnxruntime
import pytest
import torch

from compress import tasks
from compress.config.export import TorchExport
from compress.config.model import EncoderModel
from compress.errors import ModelError
from compress.export import export
from tests.zoo.encoders import BARE, CASES, POOLED, REFUSED, of, pools, with_tokenizer
from tests.zoo.sample import every_second

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


def by_the_module(encoder):
    """What the lines of a target define before the card's own, for the module."""

    def run(feeds):
        given = {name: torch.tensor(feeds[name]) for name in encoder.input_names}
        with torch.no_grad():
            return {name: each.numpy() for name, each in encoder.outputs(given).items()}

    return run


def by_the_card(folder, run, monkeypatch):
    """What the card's code computes of TEXTS, and what it prints."""
    code = json.loads((folder / "summary.json").read_text())["card"]["example_code"]
    line = next(line for line in code.splitlines() if line.startswith('texts = ["'))
    printed = []
    monkeypatch.chdir(folder)
    names = {"print": printed.append, "run": run}
    exec(compile(code.replace(line, f"texts = {TEXTS!r}"), "card", "exec"), names)
    return names["embeddings"], *printed


def stock(folder, positions=None):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        str(folder),
        device="cpu",
        local_files_only=True,
        model_kwargs={"dtype": torch.float32, "attn_implementation": "eager"},
    )
    model.max_seq_length = min(model.max_seq_length, positions or 10**9)  # it fails behind the last one
    return model


@pytest.mark.parametrize("name", every_second(CASES))
def test_what_ships_embeds_as_sentence_transformers_does(name, tmp_path, monkeypatch):
    encoder = imported(CASES[name], tmp_path)
    [gate] = json.loads((tmp_path / "out" / "stage.json").read_text())["gates"]
    assert gate["name"].startswith("read as sentence-transformers")
    published = stock(tmp_path / "published", encoder.processor.positions)
    expected = published.encode(TEXTS)
    found, similarity = by_the_card(encoder.folder, by_the_module(encoder), monkeypatch)
    np.testing.assert_allclose(similarity, published.similarity(expected, expected), rtol=1e-3, atol=1e-3)
    if not np.allclose(np.linalg.norm(found, axis=1), np.linalg.norm(expected, axis=1), atol=1e-5):
        expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)  # as the code says
    np.testing.assert_allclose(found, expected, atol=2e-5 * max(1, np.abs(expected).max()))
    shipped = json.loads((encoder.folder / "tokenizer.json").read_text("utf-8"))
    assert (shipped["truncation"], shipped["padding"]) == (None, None)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_is_refused_by_name(name, tmp_path):
    make, words = REFUSED[name]
    with pytest.raises(ModelError, match=words):
        imported(make, tmp_path)


def test_a_prompt_and_dimensions_that_are_asked_for(tmp_path):
    CASES["as Qwen3-Embedding"](tmp_path / "published")
    before = {path: path.read_bytes() for path in (tmp_path / "published").rglob("*") if path.is_file()}
    source = f"path:{tmp_path / 'published'}"
    tasks.import_model(EncoderModel(source=source, prompt="query", dimensions=6), tmp_path / "out")
    encoder = tasks.load(tmp_path / "out")
    with torch.no_grad():
        found = encoder.run(encoder.tokenize(TEXTS)).numpy()
    expected = stock(tmp_path / "published").encode(TEXTS, prompt_name="query")[:, :6]
    np.testing.assert_allclose(found, expected, atol=2e-5)
    np.testing.assert_allclose(stock(tmp_path / "out").encode(TEXTS), expected, atol=2e-5)
    assert {path: path.read_bytes() for path in before} == before
    for wrong, said in ({"prompt": "task"}, "query, document"), ({"dimensions": 17}, "at most 16"):
        with pytest.raises(ModelError, match=said):
            tasks.import_model(EncoderModel(source=source, **wrong), tmp_path / "refused")


def test_a_plain_model_has_no_prompts(tmp_path):
    CASES["plain bert"](tmp_path / "published")
    config = EncoderModel(source=f"path:{tmp_path / 'published'}", prompt="query")
    with pytest.raises(ModelError, match="no prompts"):
        tasks.import_model(config, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("side", ["right", "left"])
def test_the_graph_pools_in_every_way(side, splits_folder, tmp_path, monkeypatch):
    make = of(tokenizer=with_tokenizer(padding_side=side), **BARE, **pools(*POOLED))
    encoder = imported(make, tmp_path)
    (tmp_path / "graph").mkdir()
    export(TorchExport(), encoder.folder, splits_folder, tmp_path / "graph")
    shutil.copy(tmp_path / "graph" / "model.onnx", encoder.folder)
    found, _ = by_the_card(encoder.folder, by_the_module(encoder), monkeypatch)
    expected = stock(tmp_path / "published").encode(TEXTS)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["layers behind the pooling", "as Qwen3-Embedding", "as EmbeddingGemma"])
def test_the_graph_of_later_encoders(name, splits_folder, tmp_path, monkeypatch):
    encoder = imported(CASES[name], tmp_path)
    (tmp_path / "graph").mkdir()
    export(TorchExport(), encoder.folder, splits_folder, tmp_path / "graph")
    session = onnxruntime.InferenceSession(tmp_path / "graph" / "model.onnx")
    names = [each.name for each in session.get_inputs()]

    def run(feeds):
        given = {name: feeds[name] for name in names}
        return {"sentence_embedding": session.run(["sentence_embedding"], given)[0]}

    found, _ = by_the_card(encoder.folder, run, monkeypatch)
    np.testing.assert_allclose(found, stock(tmp_path / "published").encode(TEXTS), atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        *("plain roberta", "lower case", "default prompt", "lengths in the tokenizer, left"),
        "layers behind the pooling",
    ],
)
def test_a_checkpoint_of_ours_is_read_alike_again(name, tmp_path):
    """By sentence-transformers, and by us: pruning saves what it has opened."""
    first = imported(CASES[name], tmp_path)
    first.save(tmp_path / "again", first.facts)
    expected = stock(tmp_path / "published").encode(TEXTS)
    for folder in (tmp_path / "out", tmp_path / "again"):
        np.testing.assert_allclose(stock(folder).encode(TEXTS), expected, atol=2e-5)
    assert (tmp_path / "again" / "tokenizer.json").read_bytes() == (
        tmp_path / "out" / "tokenizer.json"
    ).read_bytes()
