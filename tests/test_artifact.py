"""An artifact is whole and what was shipped, or it is refused."""

import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress import artifact
from compress import graph as graphs
from compress.artifact import Manifest, check_files, verify, write_artifact
from compress.errors import ArtifactError
from compress.models import shipped_files
from compress.stages.result import write_result

INPUTS = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}
MANIFEST = Manifest(
    name="tiny",
    base_model="b",
    source="path:b",
    license="mit",
    lineage=("pruned",),
    config={"a": 1},
    environment={"cpu": "c"},
    splits={"test": "f"},
    headline={"ships": True},
    opset=18,
)


def write_graph(path, weight=None):
    """y = x W."""
    weight = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32) if weight is None else weight
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, path)


def write(folder, parts, **changes):
    settings = {
        "graph": parts / "graph",
        "checkpoint": parts / "checkpoint",
        "inputs": INPUTS,
        "card": "# card\n",
        "manifest": MANIFEST,
        "keep_checkpoint": True,
    }
    write_artifact(folder, **{**settings, **changes})


@pytest.fixture(scope="session")
def parts(tmp_path_factory):
    """A graph and a checkpoint as stages leave them."""
    folder = tmp_path_factory.mktemp("parts")
    (folder / "graph").mkdir()
    write_graph(folder / "graph" / "model.onnx")
    write_result(folder / "graph", ships=["model.onnx"])
    checkpoint = folder / "checkpoint"
    (checkpoint / "1_Pooling").mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "vocab.txt", "compress.json"):
        (checkpoint / name).write_text(f'"{name}"')
    (checkpoint / "1_Pooling" / "config.json").write_text("{}")
    (checkpoint / "model.safetensors").write_bytes(b"weights")
    write_result(checkpoint, ships=shipped_files(checkpoint))
    return folder


@pytest.fixture
def shipped(tmp_path, parts):
    write(tmp_path / "artifact", parts)
    return tmp_path / "artifact"


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def reseal(folder, **changes):
    """Make manifest and sums fit the files again, as somebody who tampers would."""
    manifest = json.loads((folder / "manifest.json").read_text())
    names = sorted(set(files(folder)) - {"manifest.json", "SHA256SUMS"})
    manifest["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    for key, value in changes.items():
        manifest[key] = {**manifest["files"], **value} if key == "files" else value
    (folder / "manifest.json").write_text(json.dumps(manifest))
    sums = {**manifest["files"], "manifest.json": hashlib.sha256((folder / "manifest.json").read_bytes())}
    sums["manifest.json"] = sums["manifest.json"].hexdigest()
    (folder / "SHA256SUMS").write_text("".join(f"{sums[name]}  {name}\n" for name in sorted(sums)))


def test_what_is_written_is_verified(shipped):
    manifest = verify(shipped)
    assert replace(manifest, files={}) == MANIFEST
    assert MANIFEST.files == {}
    assert sorted(files(shipped)) == sorted(
        [
            *("model.onnx", "config.json", "tokenizer.json", "vocab.txt", "README.md", "check.npz"),
            *("manifest.json", "SHA256SUMS"),
            *(f"checkpoint/{name}" for name in ("config.json", "tokenizer.json", "vocab.txt")),
            *("checkpoint/model.safetensors", "checkpoint/1_Pooling/config.json"),
        ]
    )
    assert sorted(p.name for p in shipped.parent.iterdir()) == ["artifact"]


def test_what_only_ships_beside_the_graph_is_not_read_where_the_graph_is_run(shipped):
    (shipped / "model-q8_0.gguf").write_bytes(b"weights")
    reseal(shipped)
    for name in ("model-q8_0.gguf", "checkpoint/model.safetensors"):
        (shipped / name).write_bytes(b"damaged")
        with pytest.raises(ArtifactError, match="is not the file that was shipped"):
            verify(shipped)
    check_files(shipped, beside=False)
    (shipped / "tokenizer.json").write_bytes(b"damaged")
    with pytest.raises(ArtifactError, match=r"tokenizer\.json is not the file"):
        check_files(shipped, beside=False)


def test_an_artifact_of_an_earlier_release_verifies(tmp_path):
    """Written when the files that stages leave for each other slipped into it."""
    kept = Path(__file__).parent / "fixtures" / "artifact_of_version_1"
    manifest = verify(shutil.copytree(kept, tmp_path / "artifact"))
    assert "reopened.json" in manifest.files
    (tmp_path / "artifact" / "reopened.json").unlink()
    with pytest.raises(ArtifactError, match=r"missing: reopened\.json"):
        verify(tmp_path / "artifact")


def test_what_stages_do_not_name_does_not_ship(tmp_path, parts):
    for part, names in (("graph", ["blocks.json"]), ("checkpoint", ["reopened.json", "sensitivity.json"])):
        for name in names:
            (shutil.copytree(parts / part, tmp_path / part, dirs_exist_ok=True) / name).write_text("{}")
    write(tmp_path / "artifact", tmp_path)
    assert not {"blocks.json", "reopened.json", "stage.json"} & {
        path.name for path in (tmp_path / "artifact").rglob("*")
    }


@pytest.fixture
def language_model(tmp_path, tiny_lm):
    """The artifact of one whose weights lie in a file of their own."""
    graph, checkpoint = tmp_path / "graph", tmp_path / "checkpoint"
    graph.mkdir()
    checkpoint.mkdir()
    tiny_lm.write(graph / "model.onnx")
    (graph / "genai_config.json").write_text("{}")
    for name in ("config.json", "tokenizer.json", "chat_template.jinja", "generation_config.json"):
        (checkpoint / name).write_text("{}")
    write_result(graph, ships=graphs.shipped_files(graph))
    write_result(checkpoint, ships=shipped_files(checkpoint))
    (checkpoint / "entry.json").write_text("{}")
    write(tmp_path / "lm", tmp_path, inputs=tiny_lm.feeds(np.array([[3, 1, 4, 1, 5]])))
    return tmp_path / "lm"


def test_of_a_language_model_the_logits_are_compared(language_model, tiny_lm):
    verify(language_model)
    names = set(files(language_model))
    assert {"model.onnx_data", "genai_config.json", "chat_template.jinja", "generation_config.json"} <= names
    with np.load(language_model / "check.npz") as pair:
        assert [name for name in pair.files if name.startswith("out.")] == ["out.logits"]
        assert "in.position_ids" not in pair.files  # which this graph does without
        wanted = tiny_lm.logits(np.array([3, 1, 4, 1, 5]))
        np.testing.assert_allclose(pair["out.logits"][0], wanted, rtol=1e-4, atol=1e-4)


def test_other_weights_beside_the_same_graph_are_found_out(language_model, tiny_lm):
    data = language_model / "model.onnx_data"
    numbers = np.frombuffer(data.read_bytes(), np.float32).copy()
    numbers[: numbers.size // 2] *= -1
    data.write_bytes(numbers.tobytes())
    with pytest.raises(ArtifactError, match=r"model\.onnx_data is not the file"):
        check_files(language_model)
    reseal(language_model)
    check_files(language_model)
    with pytest.raises(ArtifactError, match="output logits differs"):
        verify(language_model)


def test_without_a_checkpoint(tmp_path, parts):
    write(tmp_path / "artifact", parts, keep_checkpoint=False)
    verify(tmp_path / "artifact")
    assert not (tmp_path / "artifact" / "checkpoint").exists()


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="no sha256sum here")
def test_sha256sum_agrees(shipped):
    done = subprocess.run(["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=shipped, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(files(shipped)) - 1


def test_a_flipped_byte_in_any_file_is_found(shipped):
    for name, content in files(shipped).items():
        for at in sorted({0, len(content) // 2, len(content) - 1}):
            damaged = bytearray(content)
            damaged[at] ^= 1
            (shipped / name).write_bytes(bytes(damaged))
            with pytest.raises(ArtifactError):
                verify(shipped)
        (shipped / name).write_bytes(content)
    verify(shipped)


def test_flipped_bytes_of_the_sums_are_found(shipped):
    path = shipped / "SHA256SUMS"
    original = path.read_bytes()
    separators = [at for at, byte in enumerate(original) if byte in b" \n"]
    for at in sorted({*separators, *range(0, len(original), 31)}):
        path.write_bytes(original[:at] + bytes([original[at] ^ 1]) + original[at + 1 :])
        with pytest.raises(ArtifactError):
            verify(shipped)


def test_a_hundred_random_damages_are_refused_quickly(shipped):
    rng, original = random.Random(0), files(shipped)
    for _ in range(100):
        name = rng.choice(sorted(original))
        content = bytearray(original[name])
        kind = rng.choice(["flip", "cut", "grow", "delete", "zero"])
        if kind == "flip":
            for _ in range(rng.randint(1, 8)):
                content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        elif kind == "cut":
            del content[rng.randrange(len(content)) :]
        elif kind == "grow":
            content += rng.randbytes(rng.randint(1, 50))
        elif kind == "zero":
            at = rng.randrange(len(content))
            content[at : at + 16] = rng.randbytes(len(content[at : at + 16]))
        if kind == "delete":
            (shipped / name).unlink()
        else:
            (shipped / name).write_bytes(bytes(content))
        start = time.monotonic()
        if bytes(content) != original[name] or kind == "delete":
            with pytest.raises(ArtifactError):
                verify(shipped)
        assert time.monotonic() - start < 10
        (shipped / name).write_bytes(original[name])
    verify(shipped)


def test_missing_and_extra_files_are_named(shipped):
    (shipped / "vocab.txt").rename(shipped / "extra.txt")
    with pytest.raises(ArtifactError, match=r"missing: vocab.txt; not listed: extra.txt"):
        verify(shipped)


def test_no_artifact_at_all(tmp_path):
    with pytest.raises(
        ArtifactError, match=r"found:   no manifest.json in .*\n  allowed: .*latest/artifact$"
    ):
        verify(tmp_path)
    with pytest.raises(ArtifactError, match=r"found:   no folder .*missing\n  allowed: an artifact folder"):
        verify(tmp_path / "missing")


def test_the_folder_of_the_run_or_of_the_experiment_in_place_of_its_artifact(shipped):
    run = shipped.parent
    with pytest.raises(ArtifactError, match=f"next:    compress verify {re.escape(str(shipped))}$"):
        verify(run)
    experiment = run / "experiment"
    experiment.mkdir()
    (experiment / "latest").symlink_to(run)
    with pytest.raises(ArtifactError, match=f"next:    compress verify {experiment}/latest/artifact$"):
        verify(experiment)


def test_a_manifest_that_is_none(shipped):
    (shipped / "manifest.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"manifest.json is damaged\n  found:   Invalid JSON: .* in "):
        verify(shipped)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"opset": "x"}, "opset: .*integer"),
        ({"environment": [1]}, "environment: "),
        ({"name": None}, "name: "),
    ],
)
def test_a_damaged_manifest_names_field_and_file(changes, named, shipped):
    reseal(shipped, **changes)
    with pytest.raises(ArtifactError, match=rf"manifest.json is damaged\n.*{named}.* in .*manifest.json"):
        verify(shipped)


def test_another_version_of_the_manifest(shipped):
    reseal(shipped, manifest_version=2)
    with pytest.raises(ArtifactError, match="the manifest has another version"):
        verify(shipped)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/../../outside", "\0"])
def test_names_that_leave_the_folder(shipped, name):
    (shipped.parent / "outside").write_text("secret")
    reseal(shipped, files={name: "0" * 64})
    with pytest.raises(ArtifactError, match="lies outside its folder"):
        verify(shipped)


def test_links_that_leave_the_folder(shipped):
    outside = shipped.parent / "outside"
    outside.write_bytes((shipped / "vocab.txt").read_bytes())
    (shipped / "vocab.txt").unlink()
    (shipped / "vocab.txt").symlink_to(outside)
    with pytest.raises(ArtifactError, match=r"lies outside its folder\n  found:   vocab.txt"):
        verify(shipped)


def test_links_in_a_circle_and_links_to_folders(shipped):
    (shipped / "folder").symlink_to("/etc")
    with pytest.raises(ArtifactError, match="not listed: folder"):
        verify(shipped)
    (shipped / "folder").unlink()
    (shipped / "vocab.txt").unlink()
    (shipped / "vocab.txt").symlink_to("vocab.txt")
    with pytest.raises(ArtifactError):
        verify(shipped)


@pytest.mark.parametrize("location", ["../outside.bin", "/etc/hostname"])
def test_external_data_that_leaves_the_folder(shipped, location):
    (shipped.parent / "outside.bin").write_bytes(bytes(48))
    model = onnx.load(shipped / "model.onnx")
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (shipped / "model.onnx").write_bytes(model.SerializeToString())
    reseal(shipped)
    with pytest.raises(ArtifactError, match="lies outside its folder"):
        verify(shipped)


def test_a_graph_that_is_none(shipped):
    (shipped / "model.onnx").write_bytes(b"not a graph")
    reseal(shipped)
    with pytest.raises(ArtifactError, match="not a valid ONNX model"):
        verify(shipped)


def test_another_graph_does_not_give_the_stored_output(shipped):
    write_graph(shipped / "model.onnx", np.ones((3, 4), np.float32))
    reseal(shipped)
    with pytest.raises(ArtifactError, match="output y differs from the stored one"):
        verify(shipped)


@pytest.mark.parametrize(
    "pair",
    [
        {"in.x": INPUTS["x"]},
        {"in.x": INPUTS["x"], "out.y": np.ones((7, 9), np.float32)},
        {"in.x": INPUTS["x"], "out.y": np.full((2, 4), np.nan, np.float32)},
        {"in.x": INPUTS["x"], "out.y": np.array(["a"])},
        {"in.x": np.array([object()]), "out.y": np.ones(1)},
        {"out.y": np.ones((2, 4), np.float32)},
        {"in.x": INPUTS["x"], "out.z": np.ones((2, 4), np.float32)},
        {},
    ],
)
def test_a_stored_pair_that_does_not_fit(shipped, pair):
    np.savez(shipped / "check.npz", **pair)
    reseal(shipped)
    with pytest.raises(ArtifactError):
        verify(shipped)


# ---------------------------------------------------------------- writing


@pytest.mark.parametrize("broken", ["_stored_pair", "_seal", "swap"])
def test_a_write_that_fails_leaves_the_old_artifact(shipped, parts, monkeypatch, broken):
    before = files(shipped)

    def fail(*_):
        raise OSError("the disk is gone")

    monkeypatch.setattr(artifact, broken, fail)
    with pytest.raises(OSError, match="the disk is gone"):
        write(shipped, parts, card="# new\n")
    assert files(shipped) == before
    assert [p.name for p in shipped.parent.iterdir()] == ["artifact"]


def test_a_rename_that_fails_brings_the_old_artifact_back(shipped, parts, monkeypatch):
    before, rename = files(shipped), os.replace

    def fail(source, target):
        if Path(source).name.endswith(".partial"):
            raise OSError("cannot rename")
        rename(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="cannot rename"):
        write(shipped, parts, card="# new\n")
    assert files(shipped) == before
    assert [p.name for p in shipped.parent.iterdir()] == ["artifact"]


def test_a_write_replaces_the_old_artifact_and_what_a_killed_one_left(shipped, parts):
    for left in ("artifact.partial", "artifact.old"):
        (shipped.parent / left).mkdir()
        (shipped.parent / left / "file").write_text("left")
    write(shipped, parts, card="# new\n")
    assert (shipped / "README.md").read_text() == "# new\n"
    assert [p.name for p in shipped.parent.iterdir()] == ["artifact"]
    verify(shipped)
