"""This machine: the runner in a fresh process, models and inputs where they lie."""

import json
import os
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

from compress.config.target import LocalTarget, MachineTarget
from compress.errors import BenchmarkError
from compress.graph.session import CPU, check_provider, full_name
from compress.runner import jobs
from compress.runner.attention import PLAIN_UP_TO, SWITCH
from compress.runner.machine import machine_facts
from compress.runner.with_onnxruntime import runtime_facts
from compress.system.memory import cores

RUNNER = Path(jobs.__file__).parent
_OPENS = """
import onnxruntime

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = {threads}  # with which the times were taken; 0: every core of your machine
session = onnxruntime.InferenceSession("{model}", options, providers={providers})
input_names = [each.name for each in session.get_inputs()]
output_names = [each.name for each in session.get_outputs()]


def run(feeds):
    given = session.run(output_names, {{name: feeds[name] for name in input_names}})
    return dict(zip(output_names, given))
"""
_GENERATES = """
import os

# As it was timed, which is faster up to {tokens} tokens, with {threads} threads (genai_config.json).
os.environ["{switch}"] = "1"
"""


class ThisMachine(ABC):
    """What targets on this machine have in common, whatever runtime they are of."""

    interleaves = True
    card_language = "python"
    advice = "look whether the file loads in onnxruntime and fits in memory"  # where a model does not run

    def __init__(self, config: MachineTarget) -> None:
        self.config = config

    def facts(self) -> Mapping[str, Any]:
        return self._known_facts

    @cached_property
    def _known_facts(self) -> Mapping[str, Any]:
        return self.find_facts()

    @abstractmethod
    def find_facts(self) -> Mapping[str, Any]:
        """Its facts, checked against what the configuration asks for."""

    @abstractmethod
    def runs_with(self) -> Mapping[str, Any]: ...

    def cpu_flags(self) -> tuple[str, ...]:
        flags = self.config.cpu_flags
        return tuple(self.facts()["flags"] if flags is None else flags)

    def threads(self) -> int:
        return int(self.config.threads or self.facts()["threads"])

    def lock(self) -> AbstractContextManager[None]:
        return cores(alone=True)

    def opening(self, model: str, generates: bool) -> str:
        if generates:
            return _GENERATES.format(threads=self.threads(), tokens=PLAIN_UP_TO, switch=SWITCH)
        return _OPENS.format(model=model, threads=self.threads(), providers=self.python_providers())

    def python_providers(self) -> list[str]:
        return [CPU]

    def javascript(self, model: str) -> str:
        return ""

    def run(
        self, job: Mapping[str, Any], files: Sequence[Path], scratch: Path, seconds: float
    ) -> dict[str, Any]:
        return self.start([sys.executable, "-P", str(RUNNER)], job, scratch, seconds)

    def start(
        self, command: Sequence[str], job: Mapping[str, Any], folder: Path, seconds: float
    ) -> dict[str, Any]:
        """Run `command` with job and result in `folder`."""
        (folder / "job.json").write_text(json.dumps({**self.runs_with(), **job}))
        run_alone([*command, "job.json", "result.json"], folder, seconds, self.advice)
        result: dict[str, Any] = json.loads((folder / "result.json").read_text())
        return result


class Local(ThisMachine):
    def __init__(self, config: LocalTarget) -> None:
        super().__init__(config)
        self.provider = full_name(config.provider or CPU)

    def find_facts(self) -> Mapping[str, Any]:
        facts = self._facts()
        check_provider(self.provider, facts["runtime"])
        return facts

    def _facts(self) -> dict[str, Any]:
        return machine_facts(runtime_facts())

    def runs_with(self) -> Mapping[str, Any]:
        return {"threads": self.threads(), "provider": self.provider}

    def python_providers(self) -> list[str]:
        return list(dict.fromkeys([self.provider, CPU]))  # what one lacks the next runs


def run_alone(command: Sequence[str], folder: Path, seconds: float, advice: str = ThisMachine.advice) -> str:
    """What `command` prints, run in `folder` in a session of its own, so that it and its children end as one.

    Raises BenchmarkError with its last line where it fails, or after `seconds`.
    """
    # Variables such as OMP_NUM_THREADS change how fast a library runs; a number must not depend on a shell.
    keep = ("PATH", "HOME", "TMPDIR", "LANG", "LD_LIBRARY_PATH", "SYSTEMROOT")
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={name: os.environ[name] for name in keep if name in os.environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    except OSError as error:
        raise BenchmarkError(
            "the target's Python cannot be started", found=error, next="target.python=/path/to/python"
        ) from None
    try:
        stdout, stderr = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise hung(seconds) from None
    finally:  # also on Ctrl-C: nothing may go on measuring
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if process.returncode != 0:
        said = stderr.strip().splitlines()
        raise failed(said[-1] if said else "", process.returncode, advice)
    return stdout


def hung(seconds: float) -> BenchmarkError:
    return BenchmarkError(
        "the benchmark hung",
        found=f"no result after {seconds:.0f} s",
        next="time fewer or smaller models",
    )


def failed(said: str, code: int, advice: str = ThisMachine.advice) -> BenchmarkError:
    """`said`: the last line of the runner, where it said one."""
    return BenchmarkError(
        "a model could not be timed",
        found=said or f"the runner ended with exit code {code}",
        next=advice,
    )
