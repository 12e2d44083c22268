"""What every target gives: facts, a lock, and the result of a job that runs there.

A job is what `benchmark/runner.py` does: to time models against each other, to trace the operators of one, or
to measure what the machine reaches at best. Job and result are JSON, as the runner describes them. A target
that runs no Python brings a runner of its own that takes the same jobs.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, cast

from compress.config.target import TargetConfig
from compress.registry import implementation


class Target(Protocol):
    def facts(self) -> Mapping[str, Any]:
        """What `machine.py` says of the target: part of the key of every result that is measured there.

        Raises ConfigError where its runtime lacks what the configuration asks for.
        """

    def cpu_flags(self) -> tuple[str, ...]:
        """Flags of the CPU that models are built for: as configured, else the target's own."""

    def lock(self) -> AbstractContextManager[None]:
        """Held while something is timed: nothing else of ours computes there meanwhile."""

    def run(
        self, program: Path, job: Mapping[str, Any], files: Sequence[Path], scratch: Path, seconds: float
    ) -> dict[str, Any]:
        """The result of `program`, the runner, for `job`, with the target's threads and provider.

        `job` names `files`, which may lie elsewhere on the target, by their absolute paths; what is written
        meanwhile lies in the folder `scratch`. Raises BenchmarkError with what the runner said last, or after
        `seconds`.
        """


def open_target(config: TargetConfig) -> Target:
    """The target that `config` describes; nothing is started or checked before it is asked something."""
    return cast(Target, implementation(config)(config))
