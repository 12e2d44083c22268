"""The wheel is complete: it runs from a folder of its own, far from the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = out.glob("*.whl")
    return found


def test_everything_that_is_no_module_is_inside(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in (ROOT / "conf").rglob("*.yaml"):
        assert f"compress/conf/{path.relative_to(ROOT / 'conf').as_posix()}" in names
    for path in (ROOT / "compress").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert path.relative_to(ROOT).as_posix() in names
    assert not [name for name in names if name.startswith(("tests", "experiments", "outputs"))]


def test_it_runs_from_elsewhere(wheel, tmp_path, published):
    target, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, "--target", str(target), str(wheel)], check=True)
    environment = {**os.environ, "PYTHONPATH": str(target), "COMPRESS_CACHE": str(tmp_path / "cache")}

    def compress(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "compress", *arguments],
            cwd=elsewhere,
            env=environment,
            capture_output=True,
            text=True,
        )

    listed = compress("list")
    assert listed.returncode == 0, listed.stderr
    assert "narrow_ffn" in listed.stdout
    corpus = elsewhere / "text.txt"
    corpus.write_text("Nothing is read of this in a dry run.\n")
    planned = compress(
        *("run", "--dry-run", f"model.source=path:{published['bert']}", "prune=narrow_ffn", "data=text"),
        *("data.test_corpus=a", '+data.corpora={a: {source: "path:text.txt"}}', "evaluate.primary=cosine"),
    )
    assert planned.returncode == 0, planned.stderr
    assert "would run" in planned.stdout
    where = "import compress, compress.config.run as c; print(compress.__file__, c.conf_dir())"
    done = subprocess.run(
        [sys.executable, "-c", where], cwd=elsewhere, env=environment, capture_output=True, text=True
    )
    assert all(path.startswith(str(target)) for path in done.stdout.split())
