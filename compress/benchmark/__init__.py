"""Speed, memory and energy of ONNX models on a target."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from compress.benchmark import local as local
from compress.benchmark.limits import calibrate, floor, load_limits, memory_ms, save_limits
from compress.benchmark.local import Speed, load_speed
from compress.benchmark.profile import load_profiles, profile_model
from compress.benchmark.stats import verdict
from compress.config.target import LocalTarget, TargetConfig
from compress.data import load_splits
from compress.registry import implementation
from compress.schema.workload import Workload
from compress.system.cpu import cpu_facts, threads_available
from compress.tasks import open_processor, task_of

__all__ = [
    "Speed",
    "benchmark",
    "check_workloads",
    "cpu_facts",
    "cpu_flags",
    "floor",
    "load_limits",
    "load_profiles",
    "load_speed",
    "measure_limits",
    "memory_ms",
    "profile_operators",
    "threads_available",
    "verdict",
]


def cpu_flags(config: TargetConfig) -> tuple[str, ...]:
    """Flags of the CPU that the model is built for: as configured, else this machine's."""
    assert isinstance(config, LocalTarget)
    return tuple(config.cpu_flags or cpu_facts()["flags"])


def benchmark(config: LocalTarget, names: Sequence[str], splits: Path, *folders: Path) -> None:
    """Time `model.onnx` of graph folders, each followed by its checkpoint; the last folder is the result's.

    The first is the baseline. Every workload is real examples of exactly its batch size and length; a
    language model of other tokens or heads gets the same text in its own.
    """
    *pairs, out = folders
    graphs, checkpoints = pairs[::2], pairs[1::2]
    models = {name: graph / "model.onnx" for name, graph in zip(names, graphs, strict=True)}
    inputs = _inputs(config, checkpoints[0], splits)
    own = {
        name: _inputs(config, checkpoint, splits)
        for name, checkpoint in zip(names, checkpoints, strict=True)
        if checkpoint != checkpoints[0] and task_of(checkpoint) == "language_modeling"
    }
    implementation(config)(config, models, inputs, out, own)


def check_workloads(config: TargetConfig, checkpoint: Path) -> None:
    """Raise at once what `benchmark` would say of the target's workloads hours later; opens no model."""
    assert isinstance(config, LocalTarget)
    processor = open_processor(checkpoint)
    for workload in config.workloads:
        processor.check(Workload.parse(workload))


def profile_operators(
    config: LocalTarget, name: str, checkpoint: Path, splits: Path, graph: Path, out: Path
) -> None:
    """Where the time of a call of `graph/model.onnx` goes, by operator."""
    threads = config.threads or threads_available()
    profile_model(name, graph / "model.onnx", threads, _inputs(config, checkpoint, splits), out)


def measure_limits(config: LocalTarget, out: Path) -> None:
    """What this machine reaches at best with the target's threads."""
    save_limits(calibrate(config.threads or threads_available()), out)


def _inputs(config: LocalTarget, checkpoint: Path, splits: Path) -> dict[str, dict[str, np.ndarray]]:
    processor, examples = open_processor(checkpoint), load_splits(splits).test.examples
    return {workload: processor.workload(examples, Workload.parse(workload)) for workload in config.workloads}
