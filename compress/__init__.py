"""Prune, quantize and measure open-weight models: a checkpoint in, an ONNX file that ships out.

    import compress

    config = compress.load_config("experiment=minilm", "prune.keep.ffn=0.75")
    report = compress.run(config)                      # as `compress run`, in outputs/minilm/<run id>/
    print(report.verdict.best, report.verdict.reasons)
    compress.verify("outputs/minilm/latest/artifact")
    compress.bench("a.onnx", "b.onnx", overrides=["target.threads=1"])["verdict"]

Importing it is cheap: what a function needs is imported when it is called.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.errors import CompressError

if TYPE_CHECKING:
    from compress.artifact import Manifest
    from compress.config.run import RunConfig
    from compress.schema.report import Report

__all__ = ["CompressError", "Report", "RunConfig", "__version__", "bench", "load_config", "run", "verify"]
__version__ = "0.1.0"
_TYPES = {"Report": "compress.schema.report", "RunConfig": "compress.config.run"}


def __getattr__(name: str) -> Any:
    if name in _TYPES:
        return getattr(import_module(_TYPES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load_config(*overrides: str) -> "RunConfig":
    """The checked configuration that `compress run OVERRIDES` has.

    Raises ConfigError for an unknown key, a value out of range, or options that do not go together.
    """
    from compress.config.compose import expand, load_config
    from compress.errors import ConfigError

    for word in overrides:
        if not isinstance(word, str):
            raise ConfigError(
                "overrides are texts", found=repr(word), allowed='load_config("key=value", ...)'
            )
    [words] = expand(overrides, sweep=False)
    return load_config(words)


def run(config: "RunConfig | Sequence[str]", folder: Path | str | None = None) -> "Report":
    """Prune, recover, export, quantize and measure; what ships lies in `folder/artifact`.

    `config` is a configuration, or the overrides of one. Without `folder` the results go to
    outputs/<name>/<run id>/, to which outputs/<name>/latest then points; nothing is printed. Raises
    CompressError; finished stages are kept, and the next run takes up after them.
    """
    from datetime import datetime

    from rich.console import Console

    from compress.cli.job import point_latest
    from compress.cli.preflight import check
    from compress.config.compose import to_yaml
    from compress.config.run import RunConfig
    from compress.errors import ConfigError
    from compress.pipeline import run as run_pipeline
    from compress.sources import cache_dir
    from compress.stages.runner import StageRunner
    from compress.stages.store import Store
    from compress.system.disk import disk_errors

    if not isinstance(config, RunConfig):
        config = load_config(*([config] if isinstance(config, str) else config))
    check([config])
    out = (
        Path("outputs", config.name, f"{datetime.now():%Y%m%d-%H%M%S-%f}") if folder is None else Path(folder)
    )
    if (out / "report.json").exists():
        raise ConfigError("there is a finished run already", found=out, next="name another folder")
    runner = StageRunner(Store(cache_dir() / "store"), Console(quiet=True), config.model.task)
    with disk_errors(out, "the run's folder"):
        out.mkdir(parents=True, exist_ok=True)
        (out / "config.yaml").write_text(to_yaml(config))
        report = run_pipeline(config, out, runner, "compress.run")
        if folder is None:
            point_latest(out)
    assert report is not None  # only a dry run has none
    return report


def verify(artifact: Path | str) -> "Manifest":
    """Check sums, layout, graph and the stored input and output of an artifact; its manifest.

    Raises ArtifactError at the first failure.
    """
    from compress.artifact import verify

    return verify(Path(artifact))


def bench(
    *models: Path | str, overrides: Sequence[str] = (), folder: Path | str | None = None
) -> dict[str, Any]:
    """Time ONNX files against each other, the first as the baseline; the content of bench.json.

    `overrides` are those of `compress bench`. With `folder`, bench.json and samples.json stay there.
    Nothing is printed. Raises BenchmarkError naming the model that cannot be timed.
    """
    import json
    from tempfile import TemporaryDirectory

    from compress.cli.bench import time_words
    from compress.cli.console import console

    with TemporaryDirectory() as scratch:
        out = Path(scratch if folder is None else folder)
        quiet, console.quiet = console.quiet, True
        try:
            time_words([*map(str, models), *overrides], out=out)
        finally:
            console.quiet = quiet
        content: dict[str, Any] = json.loads((out / "bench.json").read_text())
        return content
