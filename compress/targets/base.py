"""What every target gives: facts, a lock, and the result of a job that runs there.

A job is what `compress/runner/` does: to time models against each other, to trace the operators of one, to
measure what the machine reaches at best, or to tell what a model gives. Job and result are JSON, as it
describes them. A runtime that is no Python's brings a worker of its own, which answers the same requests.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, cast

from compress.config.target import TargetConfig
from compress.registry import implementation


class Target(Protocol):
    interleaves: bool  # whether models of it can be timed in one job with those of others on this machine
    card_language: str  # of the code of a model card that it runs, as a fence of Markdown names it

    def facts(self) -> Mapping[str, Any]:
        """What `runner/machine.py` says of the target: part of the key of every result measured there.

        Raises ConfigError where its runtime lacks what the configuration asks for.
        """

    def cpu_flags(self) -> tuple[str, ...]:
        """Flags of the CPU that models are built for: as configured, else the target's own."""

    def lock(self) -> AbstractContextManager[None]:
        """Held while something is timed: nothing else of ours computes there meanwhile."""

    def runs_with(self) -> Mapping[str, Any]:
        """What a job says of the runtime: threads, provider, settings (`compress/runner/__init__.py`)."""

    def opening(self, model: str, generates: bool) -> str:
        """Python lines of a model card that open the graph `model` as it was timed here.

        They define `input_names` and `run(feeds)`, which gives output name -> array; of a language model
        that onnxruntime-genai generates with, only what has to come before that is imported.
        """

    def javascript(self, model: str) -> str:
        """The same lines in JavaScript, where the target's runtime is one of it, else none."""

    def run(
        self, job: Mapping[str, Any], files: Sequence[Path], scratch: Path, seconds: float
    ) -> dict[str, Any]:
        """The result of `job`, with what the target runs with where the job does not say it.

        `job` names `files`, or what lies in those that are folders, which may lie elsewhere on the target, by
        their absolute paths; what is written
        meanwhile lies in the folder `scratch`, what the job `outputs` writes in the end, too. Raises
        BenchmarkError with what the runner said last, or after `seconds`.
        """


def open_target(config: TargetConfig) -> Target:
    """The target that `config` describes; nothing is started or checked before it is asked something."""
    return cast(Target, implementation(config)(config))
