"""A package is written, carried to another folder, run by a bare Python, and brought back."""

import io
import json
import re
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from compress.cli.main import main
from compress.targets.package import Brought


@pytest.fixture(scope="module")
def packed(tmp_path_factory, make_chain):
    """A package of two models that has been on its journey, and what was printed as it was written."""
    root = tmp_path_factory.mktemp("package")
    for name, layers in (("dense", 8), ("small", 1)):
        make_chain(root / f"{name}.onnx", 256, layers)
    settings = ["benchmark.max_seconds=1", "benchmark.workloads=[4x1]", "target.threads=1"]
    words = ["bench", str(root / "dense.onnx"), str(root / "small.onnx"), *settings]
    assert main([*words, "--package", str(root / "packed")]) == 0
    shutil.copytree(root / "packed", root / "there")
    carried = subprocess.run(
        [sys.executable, "-I", "runner.pyz", "--package", "."],
        cwd=root / "there",
        capture_output=True,
        text=True,
        check=True,
    )
    assert "bring" in carried.stdout
    shutil.copy(root / "there" / "results.zip", root / "packed")
    return root


@pytest.fixture
def folder(packed, tmp_path):
    shutil.copytree(packed / "packed", tmp_path / "packed")
    return tmp_path / "packed"


def said(capsys, *words):
    assert main(["bench", *map(str, words)]) == 1
    return capsys.readouterr().err


def changed(folder, change):
    """results.zip, whose results.json `change` has edited."""
    with zipfile.ZipFile(folder / "results.zip") as old:
        content = {name: old.read(name) for name in old.namelist()}
    told = json.loads(content["results.json"])
    change(told, content)
    content["results.json"] = json.dumps(told).encode()
    with zipfile.ZipFile(folder / "results.zip", "w") as new:
        for name, data in content.items():
            new.writestr(name, data)


def test_what_comes_back_is_a_benchmark_like_any_other(folder, tmp_path, capsys):
    assert main(["bench", "--import", str(folder), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "speed-up" in printed
    assert "small" in printed
    assert "cosine 1.0000" in printed
    record = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert record["speed"]["speedup"]["small.onnx"]["4"]["value"] > 2
    assert record["parity"]["dense.onnx"]["min_cosine"] > 0.9999
    assert record["speed"]["machine"]["session"]["threads"] == 1
    assert record["workloads"]["4"]["x"]["made_up"]
    assert json.loads((tmp_path / "out" / "samples.json").read_text())["processes"]["small.onnx"]
    readme = (folder / "README.md").read_text()
    assert len(readme.splitlines()) == 3
    assert "--package ." in readme
    assert "compress bench --import" in readme
    assert not list(folder.parent.glob("*.part"))


def test_results_of_another_model_are_refused(folder, make_chain, packed, tmp_path, capsys):
    """Of the same names and sizes: only the sums tell."""
    make_chain(tmp_path / "dense.onnx", 256, 8)
    shutil.copy(packed / "small.onnx", tmp_path / "other.onnx")
    model = (tmp_path / "dense.onnx").read_bytes()
    changed_model = bytearray(model)
    changed_model[len(model) // 2] ^= 1
    (tmp_path / "dense.onnx").write_bytes(changed_model)
    shutil.copy(packed / "small.onnx", tmp_path / "small.onnx")
    settings = ["benchmark.max_seconds=1", "benchmark.workloads=[4x1]"]
    models = [str(tmp_path / "dense.onnx"), str(tmp_path / "small.onnx")]
    assert main(["bench", *models, *settings, "--package", str(tmp_path / "other")]) == 0
    shutil.copy(folder / "results.zip", tmp_path / "other")
    text = said(capsys, "--import", tmp_path / "other")
    assert "measured on other files" in text
    assert "'dense.onnx'" in text


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda folder: (folder / "results.zip").unlink(), "nothing was brought back"),
        (lambda folder: (folder / "results.zip").write_bytes(b"PK"), "damaged"),
        (
            lambda folder: (folder / "results.zip").write_bytes((folder / "results.zip").read_bytes()[:-99]),
            "damaged",
        ),
        (lambda folder: changed(folder, lambda told, _: told.update(package_version=0)), "another version"),
        (
            lambda folder: changed(
                folder, lambda told, _: told["results"]["time"]["workloads"]["4"].pop("small.onnx")
            ),
            "not whole(.|\n)*'small.onnx' at 4",
        ),
        (lambda folder: (folder / "0" / "dense.onnx").write_bytes(b"other"), "not what was packed"),
        (lambda folder: (folder / "package.json").unlink(), "not a package"),
    ],
)
def test_what_is_damaged_is_told(damage, expected, folder, capsys):
    damage(folder)
    assert re.search(expected, said(capsys, "--import", folder))


def test_a_machine_that_computes_something_else_is_told(folder, capsys):
    def wrong(_, content):
        with np.load(io.BytesIO(content["outputs 1.npz"])) as given:
            arrays = {name: -given[name] for name in given.files}
        into = io.BytesIO()
        np.savez(into, **arrays)
        content["outputs 1.npz"] = into.getvalue()

    changed(folder, wrong)
    text = said(capsys, "--import", folder)
    assert "small.onnx computes something else on the target" in text
    assert "cosine -1.0" in text


def test_a_package_that_was_damaged_on_its_way_is_not_run(folder):
    (folder / "results.zip").unlink()
    (folder / "0" / "dense.onnx").write_bytes(b"other")
    done = subprocess.run(
        [sys.executable, "-I", "runner.pyz", "--package", "."], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "0/dense.onnx is not the file that was packed" in done.stderr
    assert not (folder / "results.zip").exists()


def test_what_a_package_is_not_made_of(packed, folder, tmp_path, capsys):
    model = packed / "small.onnx"
    ("--package", tmp_path / "new")
    assert "is not empty" in said(capsys, model, "--package", folder)
    assert "run by Python and onnxruntime" in said(
        capsys, model, "target=node", "--package", tmp_path / "new"
    )
    assert "takes no models" in said(capsys, model, "--import", folder)
    assert not (tmp_path / "new").exists()
    assert Brought(folder).runs_with()["threads"] == 1
