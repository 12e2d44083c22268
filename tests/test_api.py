"""`import compress`: what a program has in place of the command line."""

import subprocess
import sys

import pytest

import compress
from compress.errors import BenchmarkError, CompressError, ConfigError
from compress.schema.report import Report
from tests.cli.test_bench import embedder
from tests.runs import SHRINK, environment


def test_importing_it_takes_nothing_heavy_along():
    heavy = {"hydra", "omegaconf", "pydantic", "numpy", "onnx", "torch", "rich"}
    lines = ["import sys, compress", f"print(sorted({heavy} & set(sys.modules)))", "compress.Report"]
    command = [sys.executable, "-c", "; ".join(lines)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_everything_it_promises_is_there():
    for name in compress.__all__:
        assert getattr(compress, name) is not None
    assert compress.Report is Report
    assert issubclass(ConfigError, compress.CompressError)
    assert compress.CompressError is CompressError
    with pytest.raises(AttributeError, match="'compress' has no attribute 'reports'"):
        compress.reports  # noqa: B018


def test_a_configuration_is_loaded_as_on_the_command_line():
    config = compress.load_config("experiment=minilm", "prune.keep.ffn=0.75")
    assert isinstance(config, compress.RunConfig)
    assert (config.name, config.prune.keep.ffn) == ("minilm", 0.75)
    with pytest.raises(ConfigError, match="several values for one run"):
        compress.load_config("experiment=minilm", "quantize=none,int8_static")


def test_a_run_is_that_of_the_command_line(finished, tiny, tmp_path, monkeypatch):
    """From the same store, so that every stage is there already, under the same key."""
    for name, value in environment(finished.cache).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    report = compress.run([*tiny, *SHRINK])
    assert all(stage.reused for stage in report.stages)
    latest = tmp_path / "outputs" / "tiny" / "latest"
    assert Report.load(latest / "report.json") == report
    assert (latest / "config.yaml").read_text() == (finished.folder / "config.yaml").read_text()
    assert compress.verify(latest / "artifact").name == "tiny"
    with pytest.raises(ConfigError, match="there is a finished run already"):
        compress.run([*tiny, *SHRINK], latest)
    compress.run(compress.load_config(*tiny, *SHRINK), tmp_path / "mine")
    assert compress.verify(str(tmp_path / "mine" / "artifact")).files


def test_models_are_timed_as_by_the_command(tmp_path, capsys):
    for seed, name in enumerate(["a", "b"]):
        embedder(tmp_path / f"{name}.onnx", seed=seed)
    words = ["benchmark.max_seconds=1", "benchmark.workloads=[1x8]", "target.threads=1"]
    timed = compress.bench(tmp_path / "a.onnx", tmp_path / "b.onnx", overrides=words)
    assert list(timed["verdict"]["b.onnx"]) == ["1x8"]
    assert capsys.readouterr().out == ""
    compress.bench(str(tmp_path / "a.onnx"), overrides=words, folder=tmp_path / "kept")
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["bench.json", "samples.json"]
    with pytest.raises(BenchmarkError, match="no such ONNX file"):
        compress.bench(tmp_path / "c.onnx", overrides=words)
