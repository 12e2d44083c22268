"""Speed, memory and energy of ONNX models on a target."""

from collections.abc import Sequence
from pathlib import Path

from compress.benchmark import local as local
from compress.benchmark.local import Speed, load_speed
from compress.benchmark.machine import cpu_facts, threads_available
from compress.benchmark.stats import verdict
from compress.config import LocalTarget, TargetConfig, workload_shape
from compress.data import load_splits
from compress.families import load
from compress.registry import implementation

__all__ = ["Speed", "benchmark", "cpu_facts", "cpu_flags", "load_speed", "threads_available", "verdict"]


def cpu_flags(config: TargetConfig) -> tuple[str, ...]:
    """Flags of the CPU that the model is built for: as configured, else this machine's."""
    assert isinstance(config, LocalTarget)
    return tuple(config.cpu_flags or cpu_facts()["flags"])


def benchmark(
    config: LocalTarget, names: Sequence[str], checkpoint: Path, splits: Path, *folders: Path
) -> None:
    """Time `model.onnx` of every graph folder; the first is the baseline, the last folder is the result's.

    Every workload is real text of exactly its batch size and length.
    """
    *graphs, out = folders
    encoder, texts = load(checkpoint), load_splits(splits).test.texts
    inputs = {
        workload: {
            name: tensor.numpy()
            for name, tensor in encoder.workload(texts, *workload_shape(workload)).items()
        }
        for workload in config.workloads
    }
    models = {name: graph / "model.onnx" for name, graph in zip(names, graphs, strict=True)}
    implementation(config)(config, models, inputs, out)
