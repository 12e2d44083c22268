"""`compress bench --package DIR` and `--import DIR`: times of a machine that we cannot reach."""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from compress.config.benchmark import BenchmarkConfig
from compress.errors import ConfigError
from compress.targets.base import Target
from compress.targets.local import Local
from compress.targets.outputs import outputs
from compress.targets.package import Asked, Brought, write


def write_package(
    folder: Path, targets: Mapping[str, Target], timing: BenchmarkConfig, asked: Asked, console: Console
) -> None:
    """Make a package in `folder` of what `asked` holds. Raises ConfigError for another target than local."""
    from compress.benchmark.timing import timing_job  # takes a second: no damaged file shall wait for it

    target = targets.get("local")
    if len(targets) > 1 or not isinstance(target, Local):
        raise ConfigError(
            "a package is run by Python and onnxruntime",
            found=f"target={','.join(targets)}",
            allowed="target=local, with the threads and the provider to run it with there",
        )
    runs_with: dict[str, Any] = {"provider": target.provider}
    if target.config.threads:
        runs_with["threads"] = target.config.threads
    version = target.facts()["runtime"]["version"]
    with tempfile.TemporaryDirectory() as scratch:
        job = timing_job(timing, asked.models, asked.workloads, Path(scratch), {})
        write(folder, replace(asked, benchmark=asdict(timing)), job, runs_with, version)
    console.print(f"written: {folder}", soft_wrap=True)
    console.print((folder / "README.md").read_text(), highlight=False, soft_wrap=True, end="")


def agreement(brought: Brought, asked: Asked) -> dict[str, dict[str, float]]:
    """How what each model gave there agrees with what it gives here, over all outputs of all workloads.

    Raises GateError naming the model and the output that differs by more than on any target.
    """
    from compress.benchmark import parity  # takes a second: no damaged file shall wait for it

    found: dict[str, dict[str, float]] = {}
    for name, path in asked.models.items():
        batches = [dict(feeds) for feeds in asked.workloads.values()]
        there = [dict(given) for given in outputs(brought, path, batches, name)]
        worst = parity.whole(brought, path, batches, there, name)
        found[name] = {"min_cosine": worst.cosine, "largest_relative_difference": worst.relative}
    return found
