"""`compress bench --package DIR` and `--import DIR`: times of a machine that we cannot reach."""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from compress.config.benchmark import BenchmarkConfig
from compress.errors import ConfigError, GateError
from compress.graph.session import open_session
from compress.targets.base import Target
from compress.targets.local import Local
from compress.targets.outputs import outputs
from compress.targets.package import Asked, Brought, write

LEAST_COSINE = 0.999


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

    Raises GateError naming the model and the output where the cosine is below `LEAST_COSINE`.
    """
    found: dict[str, dict[str, float]] = {}
    for name, path in asked.models.items():
        session, worst = open_session(path), {"min_cosine": 1.0, "max_abs_difference": 0.0}
        inputs = [value.name for value in session.get_inputs()]
        names = [value.name for value in session.get_outputs()]
        there = outputs(brought, path, asked.workloads.values(), name)
        for feeds, given in zip(asked.workloads.values(), there, strict=True):
            ours = session.run(names, {each: feeds[each] for each in inputs})
            for output, wanted in zip(names, ours, strict=True):
                a, b = (np.asarray(each, np.float64).ravel() for each in (wanted, given[output]))
                norms = float(np.linalg.norm(a) * np.linalg.norm(b))
                cosine = float(a @ b) / norms if norms else float(np.array_equal(a, b))
                if not cosine >= LEAST_COSINE:
                    raise GateError(
                        f"{name} computes something else on the machine of the package",
                        found=f"output {output}: cosine {cosine:.5f} to what it gives here",
                        allowed=f"at least {LEAST_COSINE}",
                        next="another onnxruntime there, or a model without the operators that differ",
                    )
                worst["min_cosine"] = min(worst["min_cosine"], cosine)
                apart = float(np.max(np.abs(a - b), initial=0.0))
                worst["max_abs_difference"] = max(worst["max_abs_difference"], apart)
        found[name] = worst
    return found
