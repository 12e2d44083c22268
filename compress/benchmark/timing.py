"""Time ONNX models on a target: the job of the runner, and its samples as numbers with intervals."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from compress.benchmark import caches
from compress.benchmark.speed import FILE, SAMPLES, Speed, summarize
from compress.config.benchmark import BenchmarkConfig
from compress.errors import BenchmarkError
from compress.graph import onnx_files
from compress.stages.typed_json import write_typed
from compress.targets.base import Target

WARMUP_SECONDS = 2.0  # at most, of one model on one workload
BLOCK_MS = 50.0
ROUNDS = 5  # of a repeat: what differs between processes weighs more than what differs within one
GRACE_SECONDS = 600.0  # beyond the time asked for, until the runner counts as hung
Feeds = Mapping[str, Mapping[str, np.ndarray]]  # workload -> name of an input -> array


def time_models(
    target: Target,
    config: BenchmarkConfig,
    models: Mapping[str, Path],
    inputs: Feeds,
    out: Path,
    own: Mapping[str, Feeds] | None = None,
    runs_with: Mapping[str, Mapping[str, Any]] | None = None,
    rounds: int = ROUNDS,
) -> Speed:
    """Time `models` (the first is the baseline) on `inputs`, interleaved: ONNX files, or folders of variants.

    Writes `samples.json` (everything the runner saw) and `speed.json` into `out`. A feed may hold more inputs
    than a model declares; the first axis of its first array is the batch. A language model whose graph can
    extends its cache in place, at the same position in every call.
    `own`: model -> inputs in their place, of the same batches and lengths, where a model cannot take them.
    `runs_with`: model -> what it runs with (`Target.runs_with`) in place of what the target's do.
    `rounds`: blocks of each model in a repeat; with fewer there is time for more fresh processes.
    Takes about `config.max_seconds`, more where three loads of every model alone take longer.
    Raises BenchmarkError naming the model and why.
    """
    _check(models, inputs)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as folder:  # a kill leaves it where the store cleans up
        job, files = timing_job(config, models, inputs, Path(folder), own or {})
        job |= {"with": dict(runs_with or {}), "min_blocks": rounds}
        samples = target.run(job, files, Path(folder), config.max_seconds + GRACE_SECONDS)
    (out / SAMPLES).write_text(json.dumps(samples))
    done = {workload: caches.items(feeds) for workload, feeds in inputs.items()}
    speed = summarize(samples, done, machine=target.facts())
    tokens = {workload: done[workload] for workload in inputs if caches.is_language_model(inputs[workload])}
    speed = replace(speed, tokens=tokens)
    write_typed(out / FILE, speed, Speed)
    return speed


def timing_job(
    config: BenchmarkConfig,
    models: Mapping[str, Path],
    inputs: Feeds,
    folder: Path,
    own: Mapping[str, Feeds],
) -> tuple[dict[str, Any], list[Path]]:
    """The runner's job but for threads and provider, and the files it names; feeds are saved in `folder`."""
    others = {
        model: save_feeds(of_model, folder / f"own{i}") for i, (model, of_model) in enumerate(own.items())
    }
    files = {name: [str(path.absolute()) for path in onnx_files(model)] for name, model in models.items()}
    job = {
        "do": "time",
        "models": files,
        "workloads": save_feeds(inputs, folder / "all"),
        "own": others,
        "baseline": next(iter(models)),
        "warmup_seconds": WARMUP_SECONDS,
        "max_seconds": config.max_seconds,
        "min_blocks": ROUNDS,
        "block_ms": BLOCK_MS,
        "ratio_ci": config.ratio_ci,
        "seed": config.seed,
        "caches": {name: caches.shared_cache(model) for name, model in models.items()},
        "capacity": caches.capacities(inputs),
        "scores": caches.scores(inputs),
    }
    graphs = dict.fromkeys(path for paths in files.values() for path in paths)
    return job, [*map(Path, graphs), *sorted(folder.rglob("*.npz"))]


def save_feeds(inputs: Feeds, folder: Path) -> dict[str, str]:
    """Workload -> file of its feeds."""
    folder.mkdir()
    files = {workload: folder / f"{number}.npz" for number, workload in enumerate(inputs)}
    for workload, feeds in inputs.items():
        np.savez(files[workload], **feeds)  # type: ignore[arg-type]
    return {workload: str(path) for workload, path in files.items()}


def _check(models: Mapping[str, Path], inputs: Feeds) -> None:
    if not models or not inputs:
        raise BenchmarkError("nothing to time", found=f"{len(models)} models, {len(inputs)} workloads")
    for name, model in models.items():
        if not all(path.is_file() for path in onnx_files(model) or [model]):
            raise BenchmarkError(f"model {name!r} has no file", found=model)
    for name, feeds in inputs.items():
        if not feeds:
            raise BenchmarkError(f"workload {name!r} has no inputs")
