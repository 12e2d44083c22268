"""What a model gives on a target, batch by batch."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from compress.runner.jobs import OUTPUTS
from compress.targets.base import Target

Arrays = Mapping[str, np.ndarray]
BATCHES = 1024  # of one job at most, and bytes of their inputs: what they give lies in memory once
BYTES = 2**28
PATIENCE_SECONDS = 3600.0


def outputs(target: Target, graph: Path, batches: Iterable[Arrays], name: str = "model") -> Iterator[Arrays]:
    """All outputs of an ONNX file for each batch of its inputs, by name, computed on the target.

    Raises BenchmarkError where the target cannot run it.
    """
    waiting: list[Arrays] = []
    size = 0
    for batch in batches:
        waiting.append(batch)
        size += sum(array.nbytes for array in batch.values())
        if len(waiting) == BATCHES or size >= BYTES:
            yield from _job(target, graph, waiting, name)
            waiting, size = [], 0
    if waiting:
        yield from _job(target, graph, waiting, name)


def _job(target: Target, graph: Path, batches: list[Arrays], name: str) -> Iterator[Arrays]:
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        (scratch / "job").mkdir()
        feeds = scratch / "feeds.npz"
        np.savez(feeds, **_numbered(batches))  # type: ignore[arg-type]
        path = graph.absolute()
        job = {"do": "outputs", "name": name, "path": str(path), "feeds": str(feeds)}
        target.run(job, [path, feeds], scratch / "job", PATIENCE_SECONDS)
        with np.load(scratch / "job" / OUTPUTS, allow_pickle=False) as given:
            arrays: dict[str, dict[str, np.ndarray]] = {
                key.split(".", 1)[0]: {} for key in given.files
            }  # in the order of the batches
            for key in given.files:
                number, output = key.split(".", 1)
                arrays[number][output] = given[key]
    yield from (arrays[str(number)] for number in range(len(batches)))


def _numbered(batches: Iterable[Arrays]) -> dict[str, np.ndarray]:
    return {f"{number}.{name}": each for number, batch in enumerate(batches) for name, each in batch.items()}
