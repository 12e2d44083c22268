"""Artifacts in the layout of transformers.js, opened by its own library in Node.js and in Chromium."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compress.artifact import verify, write_artifact
from compress.benchmark.agreement import WHOLE, difference
from compress.cli.bench_inputs import find_models
from compress.config.ship import ShipConfig
from compress.errors import ArtifactError, ConfigError
from compress.graph import graph_files, graph_path
from compress.graph.session import open_session
from compress.models import read_check_inputs
from compress.schema.layout import TRANSFORMERS_JS
from compress.sources.npm import installed
from compress.targets.browser import find_browser
from compress.targets.node import JAVASCRIPT
from compress.tasks import open_processor
from tests.test_artifact import MANIFEST

FIXTURES = Path(__file__).parent / "fixtures" / "transformers_js"
TEXTS = ["the river runs under the old bridge", "a quiet garden"]


@pytest.fixture(scope="session")
def library():
    """Where @huggingface/transformers lies, pinned by its sha512."""
    if shutil.which("node") is None:
        pytest.skip("no Node.js here: apt-get install nodejs npm")
    return installed(FIXTURES / "package-lock.json")


def laid_out(folder, graph, checkpoint, variant):
    write_artifact(
        folder,
        graph=graph,
        checkpoint=checkpoint,
        inputs=read_check_inputs(checkpoint),
        card="# card\n",
        manifest=replace(MANIFEST, headline={"ships": True, "variant": variant}),
        keep_checkpoint=True,
        layout=TRANSFORMERS_JS,
    )
    return folder


def in_node(library, folder, kind, feeds, scratch):
    return answers(library, "outputs.mjs", folder, kind, feeds, scratch)


def in_browser(library, folder, kind, feeds, scratch):
    runtimes = installed(JAVASCRIPT / "package-lock.json")
    return answers(library, "in_browser.mjs", folder, kind, feeds, scratch, runtimes, find_browser(None))


def answers(library, script, folder, kind, feeds, scratch, *words):
    (scratch / "feeds.json").write_text(json.dumps(feeds))
    done = subprocess.run(
        ["node", FIXTURES / script, folder, kind, scratch / "feeds.json", *words],
        cwd=library,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def numbers(arrays):
    return {name: {"dims": each.shape, "data": each.ravel().tolist()} for name, each in arrays.items()}


def assert_same(given, folder, feeds):
    session = open_session(graph_path(folder))
    names = [value.name for value in session.get_outputs()]
    inputs = {value.name: feeds[value.name] for value in session.get_inputs()}
    ours = dict(zip(names, session.run(names, inputs), strict=True))
    compared = [name for name in names if not name.startswith("present")]
    assert set(compared) <= set(given)
    for name in compared:
        there = np.array(given[name], ours[name].dtype).reshape(ours[name].shape)
        # As of any target that computes in float32: wasm's kernels sum in another order, 3e-7 apart here.
        assert WHOLE["f32"].holds(difference(ours[name], there)), difference(ours[name], there)


@pytest.mark.parametrize(
    "place", [in_node, pytest.param(in_browser, marks=pytest.mark.slow)], ids=["node", "browser"]
)
@pytest.mark.parametrize(("variant", "file"), [("recovered", "model"), ("int8", "model_quantized")])
def test_embeddings_of_a_text(variant, file, place, library, graphs, checkpoints, tmp_path):
    """Tokens included: the text is all that it is given."""
    folder = laid_out(tmp_path / "m", graphs(), checkpoints["bert"], variant)
    assert [path.relative_to(folder).as_posix() for path in graph_files(folder)] == [f"onnx/{file}.onnx"]
    assert verify(folder).headline["variant"] == variant
    assert find_models([str(folder)]) == {"m": graph_path(folder)}
    given = place(library, folder, "AutoModel", TEXTS, tmp_path)
    assert_same(given, folder, open_processor(checkpoints["bert"]).tokenize(TEXTS))


def test_classes_of_an_image(library, image_graphs, image_checkpoints, tmp_path):
    folder = laid_out(tmp_path / "m", image_graphs["vit"], image_checkpoints["vit"], "int8")
    session = open_session(graph_path(folder))
    [pixels] = [value.name for value in session.get_inputs()]
    feeds = {pixels: read_check_inputs(image_checkpoints["vit"])[pixels]}
    given = in_node(library, folder, "AutoModelForImageClassification", numbers(feeds), tmp_path)
    assert_same(given, folder, feeds)


@pytest.mark.parametrize("fused", [True, False])
def test_the_next_token_of_a_language_model(fused, library, language_graphs, language_checkpoints, tmp_path):
    name = "llama"
    folder = laid_out(tmp_path / "m", language_graphs(name, fused), language_checkpoints[name], "int4")
    ids = np.arange(3, 11)[None]
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    given = in_node(library, folder, "AutoModelForCausalLM", numbers(feeds), tmp_path)
    checks = read_check_inputs(language_checkpoints[name])
    past = {
        key: np.zeros((1, *each.shape[1:2], 0, each.shape[3]), each.dtype)
        for key, each in checks.items()
        if "past" in key
    }
    assert_same(given, folder, {**feeds, "position_ids": np.arange(8)[None], **past})


def test_external_weights_keep_their_graph(tmp_path, tiny_lm, library):
    """Their file is renamed with it, and config.json tells transformers.js."""
    from compress.graph.files import move_graph, with_weights

    path = tiny_lm.write(tmp_path / "model.onnx")
    names = [value.name for value in open_session(path).get_outputs()]
    (tmp_path / "onnx").mkdir()
    moved = move_graph(path, tmp_path / "onnx" / "model_q4.onnx")
    assert moved == with_weights(tmp_path / "onnx" / "model_q4.onnx")[1:]
    assert moved[0].name == "model_q4.onnx_data"
    assert [value.name for value in open_session(tmp_path / "onnx" / "model_q4.onnx").get_outputs()] == names
    assert not path.exists()


def test_what_has_no_such_layout(graphs, checkpoints, tmp_path):
    with pytest.raises(ConfigError, match=r"layout has no such value(.|\n)*transformers\.js"):
        ShipConfig(layout="transformer.js")
    shutil.copytree(graphs(), tmp_path / "two")
    shutil.copy(graph_path(graphs()), tmp_path / "two" / "other.onnx")
    result = tmp_path / "two" / "stage.json"
    text = json.loads(result.read_text())
    text["ships"] = [*text["ships"], "other.onnx"]
    result.write_text(json.dumps(text))
    with pytest.raises(ArtifactError, match=r"several graphs(.|\n)*ship\.layout=plain"):
        laid_out(tmp_path / "m", tmp_path / "two", checkpoints["bert"], "int8")
    assert not (tmp_path / "m").exists()


def test_a_run_ships_it_with_code_that_runs(finished, library, checkpoints, tmp_path):
    done = finished.run("run", *finished.overrides, "ship.layout=transformers.js", home=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = next(tmp_path.glob("outputs/tiny/2*/")) / "artifact"
    verify(folder)
    assert 'InferenceSession("onnx/model_quantized.onnx"' in (folder / "README.md").read_text()
    report = json.loads((folder.parent / "report.json").read_text())
    assert list(report["card_speed"]) == ["1x16", "2x16"]
    given = in_node(library, folder, "AutoModel", TEXTS, tmp_path)
    assert_same(given, folder, open_processor(checkpoints["bert"]).tokenize(TEXTS))
