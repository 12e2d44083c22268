"""The runner's side of a worker: has one at a time work, and stops the others."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.runner.worker import Failure

LOADED_WITH = ("threads", "provider", "settings")  # what a job says of a model's runtime,
STARTED_WITH = ("runtime", "command")  # and of the process of its own


class Worker:
    """The process of one model. With what it runs `job` says: under its name in `with`, else for all."""

    def __init__(self, name: str, job: Mapping[str, Any]) -> None:
        self.name = name
        own = job.get("with", {}).get(name) or with_keys(job, *LOADED_WITH, *STARTED_WITH)
        self.loaded_with = with_keys(own, *LOADED_WITH) | with_keys(job, "capacity", "scores")
        command = own.get("command") or [*program(), "--worker", own.get("runtime", "onnxruntime")]
        self.process: Any = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,  # a browser is several processes, which are stopped and ended as one
        )

    def load(self, path: Any, workloads: Mapping[str, str], **more: Any) -> dict[str, Any]:
        """Facts of the model; `more` is what only some runtimes know."""
        return self.ask("load", path=path, workloads=workloads, **self.loaded_with, **more)

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """Have it do one thing; before and after it is stopped, so that its pool's threads cannot spin."""
        self.signal(signal.SIGCONT)
        try:
            print(json.dumps({"do": do, "with": request}), file=self.process.stdin, flush=True)
            line = self.process.stdout.readline()  # blocks: the runner must not use the core
        except BrokenPipeError:
            line = ""
        if not line:
            raise Failure(f"model {self.name!r}: {obituary(self.process.wait())}")
        self.signal(signal.SIGSTOP)
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise Failure(f"model {self.name!r}: {reply['error']}")
        return reply

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def close(self) -> None:
        self.signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()


def obituary(code: int) -> str:
    if code == -signal.SIGKILL:
        return "its process was killed (SIGKILL), most often because memory ran out"
    if code < 0:
        return f"its process crashed ({signal.Signals(-code).name})"
    return f"its process ended with exit code {code}"


def program() -> list[str]:
    """What starts this runner once more: as it lies here, or packed in one file."""
    root = Path(__file__).parents[2]
    lies = root if root.is_file() else Path(__file__).parent
    return [sys.executable, "-I" if sys.flags.isolated else "-P", str(lies)]


def with_keys(job: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """What of the job has these keys; others may be left out."""
    return {key: job[key] for key in keys if key in job}
