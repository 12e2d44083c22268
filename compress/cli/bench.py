"""`compress bench`: any ONNX files timed against each other, also ones we did not make.

Inputs are made up from what the graphs declare: every model gets the same arrays.
"""

import argparse
import json
import math
import re
import shutil
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from compress.cli.console import console
from compress.config.benchmark import BenchmarkConfig
from compress.config.compose import expand, load_config
from compress.errors import BenchmarkError, ConfigError, did_you_mean
from compress.graph import graph_path, onnx_files
from compress.graph.files import sha256_model
from compress.graph.untrusted import Graph, Input, inspect, trial
from compress.report.format import MISSING, interval, megabytes, number, speed_word
from compress.schema.workload import Workload
from compress.targets import Target, open_target

if TYPE_CHECKING:
    from compress.benchmark.speed import Speed

BENCH_VERSION = 1
MAX_FEED_BYTES = 10**9
Feeds = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the command line asks for, but for the groups target and benchmark."""

    models: tuple[str, ...]  # the first is the baseline
    out: Path | None = None
    inputs: tuple[str, ...] = ()  # name=file.npy
    dims: tuple[str, ...] = ()  # name=number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Each MODEL is an ONNX file or the folder of one, such as an artifact; the first is the baseline. "
        "Words that begin with target. or benchmark. are Hydra overrides: target.threads, target.provider, "
        "benchmark.workloads, .max_seconds, .ratio_ci. Inputs are made up from the graph."
    )
    parser.add_argument("words", nargs="+", metavar="MODEL", help="or group.key=value")
    parser.add_argument("--out", type=Path, help="folder for bench.json and samples.json")
    parser.add_argument("--input", action="append", default=[], metavar="NAME=FILE.npy", help="a real input")
    parser.add_argument(
        "--dim", action="append", default=[], metavar="NAME=SIZE", help="of an open dimension; 1 without"
    )


def run(args: argparse.Namespace, rest: Sequence[str]) -> None:
    """Time ONNX files; words that begin with `target` or `benchmark` are Hydra's."""
    words = [*args.words, *rest]
    overrides = [word for word in words if re.match(r"[+~]*(target|benchmark)(\.\w+)*=", word)]
    [job] = expand(overrides, sweep=False)
    # a configuration is whole or none, and a benchmark needs no checkpoint
    config = load_config([*job, "model.source=path:."])
    models = tuple(word for word in words if word not in overrides)
    request = Request(models=models, out=args.out, inputs=tuple(args.input), dims=tuple(args.dim))
    bench(open_target(config.target), config.benchmark, request, console)


def bench(target: Target, timing: BenchmarkConfig, request: Request, console: Console) -> None:
    """Check, time and print; writes bench.json and samples.json into `request.out`.

    Raises BenchmarkError naming the model that cannot be timed, ConfigError for a wrong request.
    """
    if request.out and (request.out / "bench.json").exists():
        raise ConfigError(
            "there is a benchmark already", found=request.out / "bench.json", next="name another folder"
        )
    if not request.models:
        raise ConfigError("no model is named", next="compress bench a.onnx b.onnx")
    models = find_models(request.models)
    given, dims = _arrays(request.inputs), _numbers(request.dims)
    graphs = {name: inspect(path, BenchmarkError) for name, path in models.items()}
    inputs = common_inputs(graphs)
    if unknown := set(given) - set(inputs):
        raise ConfigError(
            "no model has this input", found=min(unknown), allowed=did_you_mean(min(unknown), inputs)
        )
    workloads = make_workloads(list(inputs.values()), timing.workloads, dims, given)
    for asked in timing.workloads:
        if asked not in workloads:
            console.print(
                f"[dim]{asked}: these models are timed at {', '.join(workloads)}[/]", highlight=False
            )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        lightest = min(workloads.values(), key=lambda feeds: sum(array.size for array in feeds.values()))
        for name, path in models.items():
            own = {tensor.name: lightest[tensor.name] for tensor in graphs[name].inputs}
            _try(
                path,
                own,
                folder / "feeds.npz",
                [each for each in graphs[name].inputs if each.name not in given],
            )
        console.print(f"timing {len(models)} models, about {timing.max_seconds:.0f} s ...", highlight=False)
        from compress.benchmark.timing import time_models  # takes a second: no damaged file shall wait for it

        with target.lock():
            speed = time_models(target, timing, models, workloads, folder)
        _show(speed, graphs, list(workloads), console)
        if request.out:
            request.out.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / "samples.json", request.out / "samples.json")
            record = _record(request, models, graphs, workloads, speed)
            (request.out / "bench.json").write_text(json.dumps(record, indent=2) + "\n")
            console.print(f"written: {request.out / 'bench.json'}", soft_wrap=True)


# ---- models and inputs --------------------------------------------------------------------------


def find_models(words: Sequence[str]) -> dict[str, Path]:
    """Short, different names -> files; a folder stands for the graph in it."""
    paths = [_graph(Path(word)) for word in words]
    for word in words:
        if Path(word).suffix in (".pt", ".pth", ".bin", ".safetensors", ".gguf", ".tflite"):
            raise BenchmarkError("not an ONNX file", found=word, next="compress run exports a checkpoint")
    short = [Path(word).name or word for word in words]
    names = short if len(set(short)) == len(short) else list(words)
    numbers = [names[:i].count(name) + 1 for i, name in enumerate(names)]
    return {
        name if number == 1 else f"{name} ({number})": path
        for name, number, path in zip(names, numbers, paths, strict=True)
    }


def _graph(path: Path) -> Path:
    graphs = [graph_path(path)] if graph_path(path).is_file() else onnx_files(path)
    if len(graphs) > 1:
        raise BenchmarkError("a folder of several graphs", found=path, allowed=", ".join(map(str, graphs)))
    if not graphs or not graphs[0].is_file():
        raise BenchmarkError("no such ONNX file", found=path, allowed="a file, or a folder with one in it")
    return graphs[0]


def common_inputs(graphs: Mapping[str, Graph]) -> dict[str, Input]:
    """All inputs of all models by name; those of one name must agree, so that one array fits them all.

    The vocabulary is the smallest one. Raises BenchmarkError naming the input and both models.
    """
    owners: dict[str, str] = {}
    merged: dict[str, Input] = {}
    for model, graph in graphs.items():
        for tensor in graph.inputs:
            if tensor.dtype is None or tensor.name in ("", "file"):  # np.savez keeps "file" for itself
                raise BenchmarkError(
                    f"{model}: no array can be made for the input {tensor.name!r}",
                    found=f"type {tensor.dtype or 'unknown to numpy'}",
                    allowed="a tensor of floats, integers or booleans, not called 'file'",
                )
            if tensor.name not in merged:
                owners[tensor.name], merged[tensor.name] = model, tensor
                continue
            other = merged[tensor.name]
            shape = _merge(other.shape, tensor.shape)
            if shape is None or other.dtype != tensor.dtype:
                raise BenchmarkError(
                    f"input {tensor.name} is not the same in {owners[tensor.name]} and {model}",
                    found=f"{other.dtype} {list(other.shape)} and {tensor.dtype} {list(tensor.shape)}",
                    next="time them one by one, or export them alike",
                )
            known = [rows for rows in (other.vocabulary, tensor.vocabulary) if rows is not None]
            merged[tensor.name] = replace(other, shape=shape, vocabulary=min(known, default=None))
    return merged


def _merge(left: tuple[int | str, ...], right: tuple[int | str, ...]) -> tuple[int | str, ...] | None:
    """A shape that fits both: a fixed size beats an open one; None where two fixed ones differ."""
    if len(left) != len(right):
        return None
    pairs = list(zip(left, right, strict=True))
    if any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs):
        return None
    return tuple(b if isinstance(a, str) else a for a, b in pairs)


def make_workloads(
    inputs: Sequence[Input], asked: Sequence[str], dims: Mapping[str, int], given: Mapping[str, np.ndarray]
) -> dict[str, Feeds]:
    """Feeds of every workload, named by what they are (8x128, or 8 without text); equal ones once."""
    workloads: dict[str, Feeds] = {}
    for wanted in map(Workload.parse, asked):
        if not any(_is_cache(tensor) for tensor in inputs):
            wanted = replace(wanted, past=0)
        for tensor in inputs:
            array = given.get(tensor.name)
            if array is not None and array.ndim == 2 and _is_text(tensor) and not _is_mask(tensor):
                wanted = replace(wanted, batch=array.shape[0], size=array.shape[1])
        bound = _bind(inputs, wanted, dims, given)
        feeds = dict(given)
        for tensor in inputs:
            if tensor.name not in given:
                feeds[tensor.name] = _array(tensor, _shape(tensor, wanted, bound))
        feeds = {tensor.name: feeds[tensor.name] for tensor in inputs}
        # the first axis of the first array is the batch
        feeds = dict(sorted(feeds.items(), key=lambda item: item[1].ndim == 0))
        first = next(iter(feeds.values()), None)
        if first is None or first.ndim == 0:
            raise BenchmarkError(
                "these models have no input with a batch", found=", ".join(feeds) or "no inputs"
            )
        text = next((a for a in feeds.values() if a.ndim == 2 and a.dtype.kind in "iu"), None)
        sized = next((wanted.size for tensor in inputs if _sides(tensor) and tensor.name not in given), None)
        sized = sized if text is None else text.shape[1]
        name = len(first) if sized is None else Workload(len(first), sized, wanted.past)
        workloads.setdefault(str(name), feeds)
    return workloads


def _is_text(tensor: Input) -> bool:
    return len(tensor.shape) == 2 and np.dtype(tensor.dtype).kind in "iu"


def _is_mask(tensor: Input) -> bool:
    return "mask" in tensor.name.lower()


def _sides(tensor: Input) -> tuple[int, int] | None:
    """The axes of height and width of an image, where both are open; the channels lie before or behind."""
    if len(tensor.shape) != 4 or _is_cache(tensor):
        return None
    open_axes = tuple(axis for axis in (1, 2, 3) if isinstance(tensor.shape[axis], str))
    return {(1, 2): (1, 2), (2, 3): (2, 3), (1, 2, 3): (2, 3)}.get(open_axes)


def _is_cache(tensor: Input) -> bool:
    """Keys or values of a language model: (batch, heads, cached tokens, size)."""
    return tensor.name.startswith("past_key_values.") and len(tensor.shape) == 4


def _sizes(tensor: Input, workload: Workload) -> tuple[int, ...]:
    """What the open dimensions of an input stand for, in order; a mask also covers what is cached, and an
    image has as many pixels a side as a text would have tokens."""
    batch, tokens = workload.batch, workload.size
    if _is_text(tensor):
        return batch, tokens + workload.past if _is_mask(tensor) else tokens
    if _is_cache(tensor):
        return batch, 1, workload.past, 1
    sides = _sides(tensor) or ()
    of_image = [tokens if axis in sides else tensor.channels or 1 for axis in range(1, 4)] if sides else ()
    return (batch, *(of_image or [1] * len(tensor.shape)))


def _bind(
    inputs: Sequence[Input], workload: Workload, dims: Mapping[str, int], given: Mapping[str, np.ndarray]
) -> dict[str, int]:
    """Named dimensions: the user's word, else those of a real input, else what rank-2 integer inputs and
    caches make them. Raises ConfigError for a word that is no dimension."""
    names = {dim for tensor in inputs for dim in tensor.shape if isinstance(dim, str)}
    if unknown := set(dims) - names:
        raise ConfigError(
            "no input has this dimension", found=min(unknown), allowed=did_you_mean(min(unknown), names)
        )
    bound: dict[str, int] = {}
    for tensor in inputs:
        if tensor.name in given:
            sizes = zip(tensor.shape, given[tensor.name].shape, strict=False)
            bound |= {dim: size for dim, size in sizes if isinstance(dim, str) and dim}
    for tensor in inputs:
        if tensor.name not in given and (_is_text(tensor) or _is_cache(tensor)):
            for dim, size in zip(tensor.shape, _sizes(tensor, workload), strict=True):
                if isinstance(dim, str) and dim:
                    bound.setdefault(dim, size)
    return {**bound, **dims}


def _shape(tensor: Input, workload: Workload, bound: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(
        dim if isinstance(dim, int) else bound.get(dim, size)
        for dim, size in zip(tensor.shape, _sizes(tensor, workload), strict=False)
    )


def _array(tensor: Input, shape: tuple[int, ...]) -> np.ndarray:
    """Ones for a mask, indices below the vocabulary, else a standard normal; the same for the same name."""
    dtype = np.dtype(tensor.dtype)
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > MAX_FEED_BYTES:
        raise BenchmarkError(
            f"an array for the input {tensor.name} cannot be made",
            found=f"shape {list(shape)}",
            allowed=f"at most {MAX_FEED_BYTES / 1e9:.0f} GB",
        )
    random = np.random.default_rng(zlib.crc32(tensor.name.encode()))
    if dtype.kind == "b" or _is_mask(tensor):
        return np.ones(shape, dtype)
    if dtype.kind == "f":
        return random.standard_normal(shape).astype(dtype)
    return random.integers(0, max(1, tensor.vocabulary or 2), shape).astype(dtype)


def _arrays(words: Sequence[str]) -> Feeds:
    arrays = {}
    for name, value in _pairs("--input", words, "name=file.npy").items():
        try:
            arrays[name] = np.load(value, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ConfigError(f"cannot read the input {name}", found=f"{value}: {error}") from None
        if not isinstance(arrays[name], np.ndarray):
            raise ConfigError(f"cannot read the input {name}", found=value, allowed="an .npy with one array")
    return arrays


def _numbers(words: Sequence[str]) -> dict[str, int]:
    pairs = _pairs("--dim", words, "name=number")
    for name, value in pairs.items():
        if not value.isdecimal():
            raise ConfigError(f"--dim {name} is no number", found=value, allowed="0, 1, 2, ...")
    return {name: int(value) for name, value in pairs.items()}


def _pairs(flag: str, words: Sequence[str], form: str) -> dict[str, str]:
    for word in words:
        if not all(word.partition("=")[::2]):
            raise ConfigError(f"cannot read {flag}", found=word, allowed=f"{flag} {form}")
    return dict(word.split("=", 1) for word in words)


def _try(model: Path, feeds: Feeds, scratch: Path, made_up: Sequence[Input]) -> None:
    """One run within limits, before any that is timed."""
    np.savez(scratch, **{f"in.{name}": array for name, array in feeds.items()})  # type: ignore[arg-type]
    try:
        outputs = trial(model, scratch, BenchmarkError)
    except BenchmarkError as error:
        guessed = [
            f"--dim {dim}={size}"
            for tensor in made_up
            for dim, size in zip(tensor.shape, feeds[tensor.name].shape, strict=True)
            if isinstance(dim, str) and dim
        ]
        if not guessed:
            raise
        words = " ".join(dict.fromkeys(guessed))
        raise BenchmarkError(str(error), next=f"name the sizes of open dimensions, not {words}") from None
    for output in outputs:
        if output.has_nan:
            raise BenchmarkError(
                f"{model.name} computes NaN",
                found=f"in its output {output.name}, from made-up inputs",
                next="give it real ones: --input name=file.npy",
            )


# ---- what was found -----------------------------------------------------------------------------


def _table(*columns: str, title: str | None = None) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, title=title)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left", overflow="fold")  # no number is cut
    return table


def _show(speed: "Speed", graphs: Mapping[str, Graph], workloads: Sequence[str], console: Console) -> None:
    names, unit = list(graphs), "tokens/s" if speed.tokens else "a second"
    for workload in workloads:
        table = _table("", "p50 [95 %], ms", "p90", "p99", unit, "speed-up [95 %]", title=workload)
        for name in names:
            latency, ratio = speed.latency_ms[name][workload], speed.speedup.get(name, {}).get(workload)
            table.add_row(
                Text(name),
                interval(latency.p50, latency.ci95),
                number(latency.p90),
                number(latency.p99),
                number(speed.throughput_per_second[name][workload]),
                "baseline" if ratio is None else f"{interval(ratio.value, ratio.ci95)} {speed_word(ratio)}",
            )
        console.print(table)
    energy = "joules a call" if speed.energy_joules else "CPU ms a call"
    table = _table("", "size, MB", "load, ms", "first run, ms", "peak, MB", "steady, MB", energy)
    for name in names:
        spent = speed.energy_joules[name] if speed.energy_joules else speed.cpu_ms.get(name, {})
        steady = speed.steady_memory_bytes.get(name)
        table.add_row(
            Text(name),
            megabytes(graphs[name].size_bytes),
            number(speed.load_ms[name]),
            ", ".join(number(speed.first_run_ms[name][workload]) for workload in workloads),
            megabytes(speed.peak_memory_bytes[name]),
            MISSING if steady is None else megabytes(steady),
            ", ".join(number(spent[workload]) for workload in workloads if workload in spent) or MISSING,
        )
    console.print(table)
    if not speed.energy_joules:
        console.print("[dim]no energy counter here: CPU time of all threads stands in for it[/]")
    for reason in speed.noise:
        console.print(f"[yellow]noise[/]: {reason}", highlight=False, soft_wrap=True)
    if not speed.noise:
        console.print("noise: none seen")
    console.print(_environment(speed), highlight=False, soft_wrap=True, markup=False)


def _environment(speed: "Speed") -> str:
    machine, session = speed.machine, speed.machine["session"]
    runtime = machine["runtime"]
    chosen = [session[key] for key in ("optimization_level", "precision") if key in session]
    return (
        f"{machine['model']}, {session['threads']} threads, {runtime['distribution']} {runtime['version']}, "
        f"{', '.join([*chosen, *session['providers']])}; "
        f"{machine['seconds']:.0f} s, stopped by {'precision' if machine['stopped'] == 'precise' else 'time'}"
    )


def _record(
    request: Request,
    models: Mapping[str, Path],
    graphs: Mapping[str, Graph],
    workloads: Mapping[str, Feeds],
    speed: "Speed",
) -> dict[str, Any]:
    """The contents of bench.json: what was timed, on which arrays, and what was found."""
    given = {word.partition("=")[0] for word in request.inputs}
    return {
        "bench_version": BENCH_VERSION,
        "models": {
            name: {"path": str(path), "sha256": sha256_model(path), **asdict(graphs[name])}
            for name, path in models.items()
        },
        "workloads": {
            name: {
                key: {"dtype": a.dtype.name, "shape": list(a.shape), "made_up": key not in given}
                for key, a in feeds.items()
            }
            for name, feeds in workloads.items()
        },
        "verdict": {
            model: {workload: speed_word(ratio) for workload, ratio in ratios.items()}
            for model, ratios in speed.speedup.items()
        },
        "speed": asdict(speed),
    }
