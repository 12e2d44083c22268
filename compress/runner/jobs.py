"""The jobs that a target does, and the way in."""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from compress.runner.collect import collect
from compress.runner.counters import available_bytes
from compress.runner.machine import machine_facts
from compress.runner.package import do_package
from compress.runner.worker import Failure, become, one_line, runtime, work
from compress.runner.workers import Worker

OUTPUTS = "outputs.npz"  # in the folder in which the job runs


def profile(job: dict[str, Any]) -> dict[str, Any]:
    """Trace a few calls of one model on each workload, in a process of its own.

    job:    {"name", "path", "workloads", "threads", "provider", "caches", "capacity", "scores",
             "warmup_seconds", "seconds", "calls": [fewest, most]}; the path is that of one graph
    result: {"events": onnxruntime's trace of calls and nodes,
             "runs": [[calls to skip, calls to count], one a workload], "provider": the one asked for}
    """
    worker, runs = Worker(job["name"], job), []
    with tempfile.TemporaryDirectory() as folder:
        try:
            trace = os.path.join(folder, "trace")
            worker.load(job["path"], job["workloads"], caches=job["caches"], profile=trace)
            for workload in job["workloads"]:
                warm = warmed(worker, workload, job["warmup_seconds"])
                fewest, most = job["calls"]
                count = min(most, max(fewest, int(job["seconds"] * 1e3 / warm["ms"])))
                worker.ask("block", workload=workload, count=count)
                runs.append((1 + warm["calls"] + 1, count))  # a block opens with one call that does not count
            with open(worker.ask("end_profiling")["path"]) as file:
                events = json.load(file)
        finally:
            worker.close()
    wanted = [e for e in events if e["name"] == "model_run" or e["name"].endswith("_kernel_time")]
    return {"events": wanted, "runs": runs, "provider": job.get("provider")}


def limits(job: dict[str, Any]) -> dict[str, Any]:
    """The least time of a call of each model, each alone, and how fast memory is read.

    job:    {"models": {name: [path, npz with the feeds]}, "threads", "provider", "warmup_seconds", "calls",
             "read_bytes": of memory}
    result: {"ms": {name: least}, "bandwidth_gb_per_s", "threads"}
    """
    least = {}
    for name, (path, feeds) in job["models"].items():
        worker = Worker(f"the calibration of this machine, {name}", job)
        try:
            worker.load(path, {"x": feeds})
            warmed(worker, "x", job["warmup_seconds"])
            least[name] = min(worker.ask("block", workload="x", count=job["calls"])["ms"])
        finally:
            worker.close()
    speed = bandwidth(job["threads"], job["read_bytes"])
    return {"ms": least, "bandwidth_gb_per_s": speed, "threads": job["threads"]}


def outputs(job: dict[str, Any]) -> dict[str, Any]:
    """What one model gives for each batch of feeds, in `OUTPUTS`.

    job:    {"name", "path": of one graph, "feeds": npz of arrays called NUMBER.INPUT}
    result: {"seconds"}; OUTPUTS holds arrays called NUMBER.OUTPUT
    """
    worker = Worker(job["name"], job)
    try:
        worker.load(job["path"], {})
        return worker.ask("outputs", feeds=job["feeds"], into=os.path.abspath(OUTPUTS))
    finally:
        worker.close()


def warmed(worker: Worker, workload: str, seconds: float) -> dict[str, Any]:
    worker.ask("first_run", workload=workload)
    return worker.ask("warm_up", workload=workload, seconds=seconds, block_ms=50.0)


def bandwidth(threads: int, size: int, reads: int = 5) -> float:
    """GB/s of reading `size` bytes, or a quarter of the memory that is free, each thread its part."""
    import numpy

    parts = numpy.array_split(numpy.ones(min(size, available_bytes() // 4) // 4, numpy.float32), threads)
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(reads):
            start = time.perf_counter()
            list(pool.map(numpy.max, parts))  # max, not sum: it needs one instruction per vector
            best = min(best, time.perf_counter() - start)
    return float(sum(part.nbytes for part in parts) / best / 1e9)


JOBS = {"time": collect, "profile": profile, "limits": limits, "outputs": outputs}


def main(words: Sequence[str]) -> None:
    if words[:1] == ["--worker"]:
        work(runtime(words[1]).opener())
    elif words[:1] == ["--become"]:
        become(list(words[1:]))
    elif words[:1] == ["--package"]:
        told(do_package, words[1], JOBS, OUTPUTS)
    elif words[:1] == ["--facts"]:
        print(json.dumps(machine_facts(runtime(words[1]).runtime_facts())))
    elif len(words) == 2:
        told(do, *words)
    else:
        sys.exit("usage: python runner.pyz job.json result.json | --package FOLDER | --facts RUNTIME")


def do(job_path: str, result_path: str) -> None:
    """Do one job; its result appears whole or not at all."""
    with open(job_path) as file:
        job = json.load(file)
    result = JOBS[job["do"]](job)
    with open(result_path + ".part", "w") as file:
        json.dump(result, file)
    os.replace(result_path + ".part", result_path)


def told(act: Callable[..., None], *words: Any) -> None:
    """Do it; exit with one line where it fails."""
    try:
        act(*words)
    except Failure as failure:
        sys.exit(str(failure))
    except KeyboardInterrupt:
        sys.exit("interrupted")
    except Exception as error:  # one line: whoever started us shows the last one
        sys.exit(f"{type(error).__name__}: {one_line(error)}")
