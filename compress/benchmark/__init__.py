"""Speed, memory and energy of ONNX models on a target: the stages, from folders to a folder."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from compress.benchmark import as_shipped, limits
from compress.benchmark.parity import check, check_inputs, check_same
from compress.benchmark.profile import profile_model
from compress.benchmark.timing import ROUNDS, Feeds, time_models
from compress.config.benchmark import BenchmarkConfig
from compress.config.target import TargetConfig
from compress.data import load_splits
from compress.graph import graph_path, named_graphs
from compress.schema.workload import Workload
from compress.stages.result import read_result, write_result
from compress.targets import open_target
from compress.tasks import open_processor


def benchmark(
    target: TargetConfig,
    config: BenchmarkConfig,
    graphs: Mapping[str, Path],
    checkpoints: Mapping[str, Path],
    parity: Mapping[str, Path],
    splits: Path,
    out: Path,
    targets: Mapping[str, TargetConfig] = {},
    rounds: int = ROUNDS,
) -> None:
    """Time the graphs in these folders, the first of them the baseline, fed as their checkpoints need it.
    `targets` are those of single graphs: the same machine with other settings.

    Every workload is real examples of exactly its batch size and length; a model that reads others than the
    baseline, as a language model of other tokens or heads does, gets the same examples as its own. `parity`
    is what `check_on_target` left of each; its gates are those of the result.
    """
    gates = [(name, gate) for name, folder in parity.items() for gate in read_result(folder).gates]
    write_result(out, gates=[replace(gate, name=f"{name}: {gate.name}") for name, gate in gates])
    baseline = next(iter(checkpoints.values()))
    inputs = _inputs(config, baseline, splits)
    others = {name: checkpoint for name, checkpoint in checkpoints.items() if checkpoint != baseline}
    own = {name: _inputs(config, checkpoint, splits) for name, checkpoint in others.items()}
    own = {name: feeds for name, feeds in own.items() if not _equal(feeds, inputs)}
    runs_with = {name: open_target(other).runs_with() for name, other in targets.items()}
    time_models(open_target(target), config, graphs, inputs, out, own, runs_with, rounds)


def check_on_target(
    target: TargetConfig,
    workloads: Sequence[str],
    name: str,
    checkpoint: Path,
    splits: Path,
    graph: Path,
    out: Path,
    like: Path | None = None,
) -> None:
    """Hold what the target computes with the graphs in a folder against what onnxruntime computes here.

    They are tried on calibration examples. Raises GateError naming the first operator that differs, or saying
    that a graph is not the same but for rounding as that in the folder `like`.
    """
    examples = load_splits(splits).calibration.examples
    feeds = check_inputs(open_processor(checkpoint), examples, workloads)
    if like is not None:
        same = check_same(graph_path(graph), graph_path(like), feeds, name)
        write_result(out, gates=[same])
    write_result(out, gates=check(open_target(target), named_graphs(graph), feeds, name))


def check_workloads(config: BenchmarkConfig, checkpoint: Path) -> None:
    """Raise at once what `benchmark` would say of the workloads hours later; opens no model."""
    processor = open_processor(checkpoint)
    for workload in config.workloads:
        processor.check(Workload.parse(workload))


def profile_operators(
    target: TargetConfig,
    config: BenchmarkConfig,
    name: str,
    checkpoint: Path,
    splits: Path,
    graph: Path,
    out: Path,
) -> None:
    """Where the time of a call of the graphs in a folder goes, by operator."""
    profile_model(open_target(target), name, graph, _inputs(config, checkpoint, splits), out)


def time_card(
    target: TargetConfig, config: BenchmarkConfig, artifact: Path, checkpoint: Path, splits: Path, out: Path
) -> None:
    """Hold the code of an artifact's model card against the benchmark of its graph."""
    as_shipped.time_card(open_target(target), config, artifact, _inputs(config, checkpoint, splits), out)


def measure_limits(target: TargetConfig, out: Path) -> None:
    """What the target reaches at best with its threads."""
    limits.save_limits(limits.calibrate(open_target(target)), out)


def _inputs(config: BenchmarkConfig, checkpoint: Path, splits: Path) -> Feeds:
    processor, examples = open_processor(checkpoint), load_splits(splits).test.examples
    return {workload: processor.workload(examples, Workload.parse(workload)) for workload in config.workloads}


def _equal(feeds: Feeds, others: Feeds) -> bool:
    """Whether they are the same arrays under the same names."""
    return all(
        arrays.keys() == others[workload].keys()
        and all(np.array_equal(array, others[workload][name]) for name, array in arrays.items())
        for workload, arrays in feeds.items()
    )
