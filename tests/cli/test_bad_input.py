"""What users get wrong ends in one clear message, in seconds, and spoils nothing."""

import json
import re
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.runs import environment

ONE_MESSAGE = r"\Aerror: [^\n]+\n(  (found|allowed|next): +[^\n]+\n)+\Z"


def refused(done, *patterns):
    """One message on stderr, exit code 1, no traceback."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.match(ONE_MESSAGE, done.stderr), done.stderr
    for pattern in patterns:
        assert re.search(pattern, done.stderr), done.stderr


CONFIGS = {
    "misspelt key": (
        ["model.source=path:.", "prune=transformer", "prune.keep.fnn=0.5"],
        "unknown key in Keep",
        "mean 'ffn'",
    ),
    "ratio": (
        ["model.source=path:.", "prune=transformer", "prune.keep.ffn=1.5"],
        "found:   1.5",
        r"allowed: \(0, 1\]",
    ),
    "model": (["model=foo"], "unknown option for model", "minilm"),
    "missing file": (["model.source=path:missing"], "no such file or folder", "missing"),
    "missing text": (
        [
            "model.source=path:.",
            "data=text",
            "data.test_corpus=a",
            "evaluate.primary=cosine",
            '+data.corpora={a: {source: "path:no.txt"}}',
        ],
        "no such file or folder",
        "no.txt",
    ),
    "a baseline nobody trained": (
        ["experiment=fashion_resnet"],
        "the baseline of this experiment is not trained yet",
        "next:    compress train experiment=fashion_resnet",
    ),
    "a vocabulary of an encoder": (
        ["model.source=path:.", "prune=transformer", "prune.vocabulary=100"],
        r"prune\.vocabulary does not work on this kind of model",
        "found: +100 for sentence_embedding",
        "allowed: +prune.vocabulary=null|allowed: +vocabulary=null",
    ),
    "an importance that compares no layers of a language model": (
        ["experiment=smollm2", "prune=transformer", "prune.scope=global"],
        r"prune\.scope=global compares channels",
        "found: +importance=activation",
    ),
    "a cache that the task has not": (
        ["model.source=path:.", "benchmark.workloads=[1x1+442]"],
        "only language models have cached tokens",
        r"found: +the workload 1x1\+442",
    ),
    "unknown scheme": (["model.source=ftp:x"], "unknown kind of source 'ftp'", "hf, npm, package, path"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_wrong_configuration_fails_in_seconds_and_leaves_nothing(compress, tmp_path, case):
    overrides, *patterns = CONFIGS[case]
    start = time.monotonic()
    refused(compress("run", *overrides), *patterns)
    assert time.monotonic() - start < 10
    assert list(tmp_path.iterdir()) == []


def test_wrong_configurations_fail_before_torch_is_loaded(tmp_path):
    calls = [["run", *overrides] for overrides, *_ in CONFIGS.values()]
    script = (
        f"import sys; from compress.cli.main import main; codes = [main(words) for words in {calls}]; "
        "print(codes, [m for m in ('torch', 'transformers', 'onnxruntime') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment(tmp_path / "cache"),
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"{[1] * len(calls)} []\n", done.stderr


GRIDS = {
    "no value": (["quantize=,"], r"found: +quantize=,\n", "next: +a value is missing beside a comma"),
    "a gap": (["prune.keep.ffn=0.5,"], r"found: +prune.keep.ffn=0.5,\n", "a value is missing"),
    "an empty value": (["prune.keep.ffn="], "wrong value for prune.keep.ffn", "allowed: a number"),
    "an empty range": (["prune.keep.ffn=range(1,1)"], "a sweep over no values", r"found: .*range\(1,1\)"),
    "an empty choice": (["prune.keep.ffn=choice()"], r"found: +prune.keep.ffn=choice\(\)\n"),
    "the last out of range": (["prune.keep.ffn=0.5,1.5"], "found:   1.5", r"allowed: \(0, 1\]"),
    "the last no number": (["prune.keep.ffn=0.5,half"], "found:   half", "allowed: a number"),
    "the last no option": (["quantize=int8_dynamic,int8_dynamc"], "mean 'int8_dynamic'"),
    "twins": (["prune.keep.ffn=0.5,0.50"], "two points of the sweep have the same settings", "leave one out"),
    "a key that one lacks": (
        ["quantize=int8_dynamic,none", "quantize.min_coverage=0"],
        "unknown key in NoQuantize",
    ),
}


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
@pytest.mark.parametrize("scheme", ["path", "hf"])
def test_an_architecture_that_the_exporter_does_not_know(scheme, dry, tmp_path, monkeypatch, capsys):
    """Where config.json alone is there: the weights need not be."""
    from compress.cli import main as cli

    hub, commit = tmp_path / "hub" / "models--org--olmo", "0123456789abcdef0123456789abcdef01234567"
    snapshot = hub / "snapshots" / commit
    for folder in (snapshot, hub / "refs"):
        folder.mkdir(parents=True)
    (hub / "refs" / "main").write_text(commit)
    (snapshot / "config.json").write_text('{"model_type": "olmo3"}')
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    source = {"path": f"path:{snapshot}", "hf": "hf:org/olmo"}[scheme]
    words = ["run", *dry, "experiment=smollm2", "model=causal_lm", f"model.source={source}"]
    code = cli.main(words)
    patterns = (
        "export=genai does not know",
        "found: +olmo3\n",
        "llama, mistral",
        "next: +export=torch or export=auto\n",
    )
    refused(subprocess.CompletedProcess(words, code, *capsys.readouterr()), *patterns)
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]


@pytest.mark.parametrize("case", GRIDS)
def test_a_wrong_grid_fails_before_its_first_point_runs(tmp_path, monkeypatch, capsys, case):
    from compress.cli import main as cli

    monkeypatch.chdir(tmp_path)
    words, *patterns = GRIDS[case]
    base = ["-m", "model.source=path:.", "prune=transformer", "prune.keep.ffn=0.5", "hydra.sweep.dir=swept"]
    code = cli.main(["run", *base, *words])
    refused(subprocess.CompletedProcess(words, code, *capsys.readouterr()), *patterns)
    assert list(tmp_path.iterdir()) == []


# The rest needs the heavy imports; it runs in one process, by the same entry point.


@pytest.fixture
def here(monkeypatch, tmp_path, capsys):
    """Run the command line in this process, in `tmp_path`; compare what it left before and after."""
    from hydra.core.global_hydra import GlobalHydra

    from compress.cli import main as cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(sys, "argv", ["compress"])
    earlier = tmp_path / "outputs" / "tiny" / "earlier"
    earlier.mkdir(parents=True)
    (earlier / "report.json").write_text("{}")
    (earlier.parent / "latest").symlink_to("earlier")

    def run(*arguments):
        code = cli.main(["run", *arguments])
        GlobalHydra.instance().clear()
        stdout, stderr = capsys.readouterr()
        assert (earlier / "report.json").read_text() == "{}"
        assert (earlier.parent / "latest").resolve() == earlier
        left = [p.name for p in (tmp_path / "outputs").rglob("*") if p.is_file()]
        assert set(left) <= {"report.json", "config.yaml", "run.log"}
        assert not list(tmp_path.rglob("artifact*"))
        return subprocess.CompletedProcess(arguments, code, stdout, stderr)

    return run


def test_a_wrong_sha256(here, tiny):
    done = here(*tiny, f"model.sha256={'0' * 64}")
    refused(done, "is not what was pinned", f"allowed: {'0' * 64}")
    log = Path(re.search(r"^log: +(/.*/run\.log)$", done.stdout, re.MULTILINE).group(1))
    assert "is not what was pinned" in log.read_text()


@pytest.mark.parametrize(
    ("source", "pattern"),
    [
        ("hf:org/model@main", "no network, and hf:org/model@main is not in the cache"),
        ("package:no-such-package-of-ours==1.0/x", r"PIP_NO_INDEX is set"),
    ],
)
def test_no_network(here, tiny, source, pattern):
    refused(here(*tiny, f'model.source="{source}"'), pattern)


def damaged(published, tmp_path, kind):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(published["bert"], tmp_path / "model")
    weights = folder / "model.safetensors"
    if kind == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif kind == "garbage":
        weights.write_bytes(b"\x80\x04garbage")
    elif kind == "NaN":
        tensors = load_file(weights)
        next(iter(tensors.values()))[0] = float("nan")
        save_file(tensors, weights, {"format": "pt"})
    elif kind == "pickle":
        weights.rename(folder / "pytorch_model.bin")
    elif kind == "no config":
        (folder / "config.json").unlink()
    elif kind == "config":
        (folder / "config.json").write_text("{")
    elif kind == "architecture":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "model_type": "brt"}))
    return folder


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [
        ("truncated", "model.safetensors is damaged or not safetensors"),
        ("garbage", "model.safetensors is damaged or not safetensors"),
        ("NaN", "NaN or infinity in"),
        ("pickle", r"pickles, which can run code when opened: pytorch_model.bin"),
        ("no config", "no model in"),
        ("config", "config.json is not JSON"),
        (
            "architecture",
            r"unknown architecture of a sentence encoder\n  found:   brt\n  allowed: .*mean 'bert'",
        ),
    ],
)
def test_a_model_that_is_none(here, tiny, published, tmp_path, kind, pattern):
    folder = damaged(published, tmp_path, kind)
    done = here(*tiny, f"model.source=path:{folder}")
    assert done.returncode == 1
    assert re.match(r"\Aerror: ", done.stderr)
    assert re.search(pattern, done.stderr), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("content", "pattern"),
    [
        (b"", "text.txt holds no text"),
        (b"one short line\n", "too little text for the split"),
        (b"caf\xe9 \xff\xfe\n", r"text.txt is not utf-8 text"),
    ],
)
def test_a_text_that_is_none(here, tiny, tmp_path, content, pattern):
    (tmp_path / "text.txt").write_bytes(content)
    corpus = f'+data.corpora={{made: {{source: "path:{tmp_path}/text.txt"}}}}'
    given = [corpus if word.startswith("+data.corpora=") else word for word in tiny]
    refused(here(*given), pattern)


def test_a_full_disk(here, tiny, tmp_path, monkeypatch):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("cannot mount a tmpfs here")
    try:
        monkeypatch.setenv("COMPRESS_CACHE", str(disk))
        refused(here(*tiny), "the disk is full", "next:    free some space or set COMPRESS_CACHE")
        assert list((disk / "store" / "entries").iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "error"), [("full", "the disk is full"), ("read-only", "the cache cannot be written")]
)
def test_a_sweep_whose_cache_takes_no_more_keeps_the_points_that_need_none(finished, tmp_path, kind, error):
    """Point 0 is all in the cache; point 1 wants to be timed, and fails with advice. Exit code 1."""
    disk, store = tmp_path / "disk", finished.cache / "store"
    disk.mkdir()
    held = sum(2 * path.stat().st_size // 4096 * 4096 + 8192 for path in store.rglob("*"))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={held}", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("cannot mount a tmpfs here")
    try:
        shutil.copytree(store, disk / "store")
        if kind == "read-only":
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        else:
            with suppress(OSError), (disk / "ballast").open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        words = [
            *finished.overrides,
            "benchmark.workloads=[1x16,2x16],[1x16]",
            f"hydra.sweep.dir={tmp_path}/swept",
        ]
        done = finished.run("run", "-m", *words, home=tmp_path, COMPRESS_CACHE=str(disk))
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    points = [json.loads((tmp_path / "swept" / str(n) / "point.json").read_text()) for n in range(2)]
    assert [point["status"] for point in points] == ["done", "failed"], points
    assert points[1]["error"].startswith(error)
    assert "COMPRESS_CACHE" in points[1]["error"]
    assert (tmp_path / "swept" / "0" / "artifact" / "manifest.json").is_file()
    assert "1 failed" in done.stdout
    swept = json.loads((tmp_path / "swept" / "sweep.json").read_text())
    assert [point["status"] for point in swept["points"]] == ["done", "failed"]


def test_a_folder_that_cannot_be_written(here, tiny, tmp_path):
    shutil.rmtree(tmp_path / "outputs")
    (tmp_path / "outputs").write_text("a file where a folder should be")
    from compress.cli import main as cli

    assert cli.main(["run", *tiny]) == 1


def test_a_cache_that_is_a_file(here, tiny, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "file"))
    refused(here(*tiny), "the cache cannot be written", "next:    set COMPRESS_CACHE")


def test_ctrl_c(here, tiny, monkeypatch):
    from compress import tasks

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tasks, "identity", interrupt)
    done = here(*tiny)
    assert done.returncode == 130
    assert done.stderr.strip().startswith("interrupted: ")
    assert "Traceback" not in done.stderr
    log = Path(re.search(r"^log: +(/.*/run\.log)$", done.stdout, re.MULTILINE).group(1))
    assert "stopped by KeyboardInterrupt" in log.read_text()
