"""Open an ONNX file that nobody vouches for: read, checked and run in a process with limits.

Damaged or hostile bytes can crash protobuf and onnxruntime, make them ask for terabytes or never
return. So nothing of such a file is parsed here: a child (`probe.py`) does it, and its death is
an error message like any other.
"""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from compress.errors import CompressError

CPU_SECONDS = 4.0  # and one more for every ...
BYTES_A_SECOND = 25e6  # ... of the file
MEMORY_BYTES = 4 * 10**9  # of address space, and six times the file
PATIENCE = 3.0  # beyond the CPU time: what waits for something else than a core


@dataclass(frozen=True, kw_only=True)
class Input:
    """An input of a graph; an open dimension is its name, "" where it has none."""

    name: str
    dtype: str | None  # numpy's name of it; None for what numpy has no array for
    shape: tuple[int | str, ...]
    vocabulary: int | None  # rows of the table that this input indexes
    channels: int | None = None  # of the images that this input is, by the first convolution's weights


@dataclass(frozen=True, kw_only=True)
class Graph:
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    opset: int
    size_bytes: int  # external data included


@dataclass(frozen=True, kw_only=True)
class Output:
    name: str
    shape: tuple[int, ...]
    has_nan: bool
    wanted_shape: tuple[int, ...] | None = None
    cosine: float | None = None  # to the expected output; NaN where the two cannot be compared


_GRAPH, _OUTPUTS = TypeAdapter(Graph), TypeAdapter(tuple[Output, ...])


def inspect(model: Path, error: type[CompressError]) -> Graph:
    """What a graph wants and gives. Raises `error`, naming the file and the tensor, unless it is sound:
    readable, external data in its folder and as long as its shape needs, no NaN in a tensor.
    """
    return _GRAPH.validate_python(_probe(model, error, inspect=True)["graph"])


def trial(model: Path, feeds: Path, error: type[CompressError]) -> tuple[Output, ...]:
    """Run once on the arrays `in.NAME` of an .npz; its arrays `out.NAME`, if any, are what is expected.

    Raises `error` where onnxruntime cannot load or run it within the limits of time and memory.
    """
    return _OUTPUTS.validate_python(_probe(model, error, feeds=feeds)["outputs"])


def inspect_and_try(model: Path, feeds: Path, error: type[CompressError]) -> tuple[Graph, tuple[Output, ...]]:
    """`inspect` and `trial` in one process, and onnx's checker, which some files fail that would run."""
    reply = _probe(model, error, inspect=True, strict=True, feeds=feeds)
    return _GRAPH.validate_python(reply["graph"]), _OUTPUTS.validate_python(reply["outputs"])


def _probe(
    model: Path,
    error: type[CompressError],
    inspect: bool = False,
    strict: bool = False,
    feeds: Path | None = None,
) -> dict[str, Any]:
    if not model.is_file():  # also a pipe, which would never end
        raise error("no such ONNX file", found=model)
    size = sum(path.stat().st_size for path in model.parent.glob(model.name + "*") if path.is_file())
    seconds = CPU_SECONDS + size / BYTES_A_SECOND
    request = {"model": str(model), "inspect": inspect, "strict": strict, "feeds": feeds and str(feeds)}
    request |= {"seconds": seconds, "memory_bytes": MEMORY_BYTES + 6 * size}
    keep = ("PATH", "HOME", "TMPDIR", "LANG", "LD_LIBRARY_PATH", "SYSTEMROOT")
    environment = {name: os.environ[name] for name in keep if name in os.environ}
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(Path(__file__).with_name("probe.py"))],
            # every thread of a library's pool would take its share of the address space
            env={**environment, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            input=json.dumps(request),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=(seconds + PATIENCE) * _crowd(),
        )
        printed, code = done.stdout, done.returncode
    except subprocess.TimeoutExpired as expired:
        printed, code = (expired.stdout or b"").decode(errors="replace"), -signal.SIGXCPU
    replies = [{"step": "starting"}, *map(_json, printed.splitlines())]
    if "error" in replies[-1]:
        raise _explain(model, error, replies[-1]["error"])
    if code != 0 or "step" in replies[-1] or not replies[-1]:
        step = [reply["step"] for reply in replies if "step" in reply][-1]
        raise _died(model, error, code, step, seconds)
    return replies[-1]


def _crowd() -> float:
    """How many processes share a core of ours: a sound file must not fail because others compute."""
    if not hasattr(os, "getloadavg"):
        return 1.0
    ours = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1.0, os.getloadavg()[0] / ours)


def _json(line: str) -> dict[str, Any]:
    """Nothing where a child that died left half a line."""
    with suppress(ValueError):
        if isinstance(reply := json.loads(line), dict):
            return reply
    return {}


def _explain(model: Path, error: type[CompressError], problem: dict[str, Any]) -> CompressError:
    if problem["what"]:  # a finding of our own
        joint = " " if problem["what"].startswith("is ") else ": "
        return error(
            f"{model.name}{joint}{problem['what']}",
            found=problem["found"],
            allowed=problem["allowed"],
            next="fetch or export the file again",
        )
    if problem["full"]:
        return error(
            f"{model.name} needs too much memory",
            found=f"{problem['found']} (while {problem['step']})",
            allowed=f"{MEMORY_BYTES / 1e9:.0f} GB and six times the file",
        )
    if problem["step"] == "reading it":
        return error(f"{model.name} is not a valid ONNX model", found=problem["found"])
    return error(f"{model.name} does not run", found=f"{problem['found']} (while {problem['step']})")


def _died(model: Path, error: type[CompressError], code: int, step: str, seconds: float) -> CompressError:
    if -code in (signal.SIGXCPU, signal.SIGKILL):
        return error(
            f"{model.name} does not come to an end",
            found=f"still {step} when it was stopped",
            allowed=f"{seconds:.0f} s of CPU for a file of its size",
        )
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return error(f"{model.name} crashes onnxruntime or onnx", found=f"{how} while {step}")
