"""The worker: one model in one process, which answers requests.

Requests and replies are JSON objects, one a line. A runtime is a class beside `Model`, in a file of its own.
"""

import gc
import json
import math
import os
import signal
import statistics
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from compress.runner.counters import memory, run_delay

MAX_CALLS = 1000  # of one block


class Failure(Exception):
    """Something the caller can act on; printed as one line."""


def work(open_model: Callable[[dict[str, Any]], Any]) -> None:
    """Answer requests until stdin closes; `open_model` makes a runtime's model of the request to load it."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a runtime prints must not end up among the replies
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the runner ends us
    end_with_parent()
    model: Any = None
    gc.disable()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["do"] == "load":
                model = open_model(request["with"])
                reply = model.facts
            elif request["do"] == "ready":
                reply = {}
            else:
                reply = getattr(model, request["do"])(**request["with"])
        except MemoryError:
            reply = {"error": "out of memory"}
        except Exception as error:  # whatever a runtime raises goes to the parent, as one line
            reply = {"error": one_line(error)}
        print(json.dumps(reply), file=replies, flush=True)


def become(command: list[str]) -> None:
    """Become a worker that runs no Python. It ends with the runner; its replies go to descriptor 3, and what
    its runtime prints, to stderr."""
    end_with_parent()
    os.dup2(1, 3)
    os.dup2(2, 1)
    os.execvp(command[0], command)


def runtime(name: str) -> Any:
    """The module of a runtime, whose library is loaded here, before any model is."""
    return import_module(f"compress.runner.with_{name}")


class Model(ABC):
    """A model of some runtime. A request to load it names `path`, a graph's or those of several that run one
    after another, and `workloads`, the file of each one's feeds, beside what the job says of the runtime."""

    facts: dict[str, Any]  # at least "load_ms" and "rss_before_bytes"

    def __init__(self, request: Mapping[str, Any]) -> None:
        self.paths = [request["path"]] if isinstance(request["path"], str) else list(request["path"])
        self.workloads: dict[str, str] = request["workloads"]
        self.steps: dict[str, list[Callable[[], Any]]] = {}  # workload -> a call of each graph

    @abstractmethod
    def inputs(self) -> list[list[str]]:
        """Names of the inputs of each graph."""

    @abstractmethod
    def prepare(self, workload: str, feeds: list[dict[str, Any]]) -> list[Callable[[], Any]]:
        """What runs each graph on its feeds."""

    @abstractmethod
    def compute(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """All outputs of a model of one graph, by name."""

    def first_run(self, workload: str) -> dict[str, float]:
        """Milliseconds of the first call on this workload, which plans memory and fills the arena."""
        import numpy

        with numpy.load(self.workloads[workload], allow_pickle=False) as arrays:
            missing = [name for names in self.inputs() for name in names if name not in arrays.files]
            if missing:
                raise Failure(
                    f"workload {workload!r} lacks the input {missing[0]!r} (it has {', '.join(arrays.files)})"
                )
            feeds = [{name: arrays[name] for name in names} for names in self.inputs()]
        self.steps[workload] = self.prepare(workload, feeds)
        return {workload: self.calls(workload, 1)[0]}

    def calls(self, workload: str, count: int) -> list[float]:
        clock, steps, ns = time.perf_counter_ns, self.steps[workload], []
        for _ in range(count):
            start = clock()
            for step in steps:
                step()
            ns.append(clock() - start)
        return [round(each / 1e6, 6) for each in ns]

    def warm_up(self, workload: str, seconds: float, block_ms: float) -> dict[str, Any]:
        """Windows of about `block_ms` until two in a row are within 3 % of the one before."""
        medians: list[float] = []
        start, calls, count, steady = time.perf_counter(), 0, 1, 0
        while not medians or (steady < 2 and time.perf_counter() - start < seconds):
            medians.append(statistics.median(self.calls(workload, count)))
            calls += count
            count = max(1, min(MAX_CALLS, math.ceil(block_ms / max(medians[-1], 1e-6))))
            close = len(medians) > 1 and abs(medians[-1] / medians[-2] - 1) <= 0.03
            steady = steady + 1 if close else 0
        return {"calls": calls, "stable": steady == 2, "ms": medians[-1]}

    def block(self, workload: str, count: int) -> dict[str, Any]:
        cpu, delay = time.process_time(), run_delay()
        self.calls(workload, 1)  # brings the model back into the caches that the others used
        ms = self.calls(workload, count)
        spent, after = time.process_time() - cpu, run_delay()
        waited = None if delay is None or after is None else after - delay
        return {"ms": ms, "cpu_seconds": spent, "waited_seconds": waited}

    def memory(self) -> dict[str, Any]:
        return memory()

    def outputs(self, feeds: str, into: str) -> dict[str, Any]:
        """Write what the model gives for each batch of the file `feeds`, whose arrays are called NUMBER.NAME;
        `into` has the same layout."""
        import numpy

        given: dict[str, Any] = {}
        [inputs] = self.inputs()
        with numpy.load(feeds, allow_pickle=False) as arrays:
            for number in sorted({int(key.partition(".")[0]) for key in arrays.files}):
                batch = {name: arrays[f"{number}.{name}"] for name in inputs}
                given |= {f"{number}.{name}": each for name, each in self.compute(batch).items()}
        numpy.savez(into, **given)
        return {}


def end_with_parent() -> None:
    """Have the kernel (Linux) kill us when the runner dies: a process that is stopped cannot notice."""
    if sys.platform == "linux":
        import ctypes

        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)


def one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    signs = ("failed to allocate", "bad_alloc", "bad allocation")
    return f"out of memory: {text}" if any(sign in text.lower() for sign in signs) else text
