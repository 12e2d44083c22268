"""Whether what ships is as fast as the report says: the code of its model card, run as a stranger would."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.benchmark.stats import speedup
from compress.benchmark.timing import Feeds, timing_job
from compress.config.benchmark import BenchmarkConfig
from compress.errors import BenchmarkError
from compress.graph import onnx_files
from compress.runner.with_readme import code_of
from compress.schema.estimates import Estimate
from compress.stages.typed_json import read_typed, write_typed
from compress.targets.base import Target

FILE = "as_shipped.json"
MEASURED, CARD = "as measured", "README.md"  # the two that are timed against each other
SECONDS = 20.0
GRACE_SECONDS = 600.0


def time_card(target: Target, config: BenchmarkConfig, artifact: Path, inputs: Feeds, out: Path) -> None:
    """Write how many times as fast the code of the card in `artifact` is as the benchmark of the same graph,
    by workload; nothing for a card without code.

    The code is what the card has in the language of the target's runtime. Raises BenchmarkError where that
    fails.
    """
    ratios: dict[str, Estimate] = {}
    if code_of(artifact / CARD, target.card_language) is not None:
        timed = _samples(target, config, artifact, inputs)["workloads"]
        ratios = {workload: speedup(of[MEASURED], of[CARD]) for workload, of in timed.items()}
    write_typed(out / FILE, ratios, dict[str, Estimate])


def load_card_times(folder: Path) -> dict[str, Estimate]:
    """By workload, what `time_card` wrote. Raises BenchmarkError when it cannot be read."""
    return read_typed(folder / FILE, dict[str, Estimate], BenchmarkError, "run it again")


def _samples(target: Target, config: BenchmarkConfig, artifact: Path, inputs: Feeds) -> Mapping[str, Any]:
    [graph] = onnx_files(artifact)
    with tempfile.TemporaryDirectory() as folder:
        job, files = timing_job(config, {MEASURED: graph}, inputs, Path(folder), {})
        job["models"][CARD] = str((artifact / CARD).absolute())
        job["max_seconds"] = min(SECONDS, config.max_seconds)
        job["caches"][CARD] = {}
        if target.card_language == "python":  # a worker in JavaScript runs cards, too
            job["with"] = {CARD: {"runtime": "readme"}}
        return target.run(
            job, [*files, artifact.absolute()], Path(folder), job["max_seconds"] + GRACE_SECONDS
        )
