"""`compress bench`: any ONNX files timed against each other, also others' than ours, on one or more targets.

Inputs are made up from what the graphs declare: every model gets the same arrays.
"""

import argparse
import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from compress.cli.bench_inputs import (
    Feeds,
    arrays_of,
    common_inputs,
    find_models,
    make_workloads,
    numbers_of,
    try_once,
)
from compress.cli.bench_table import show
from compress.cli.console import console
from compress.cli.package import agreement, write_package
from compress.config.benchmark import BenchmarkConfig
from compress.config.compose import expand, load_config, on_targets
from compress.config.target import asks_to_tune
from compress.errors import BenchmarkError, ConfigError, did_you_mean
from compress.graph.files import sha256_model
from compress.graph.untrusted import Graph, inspect
from compress.judge.across import Entry, losers
from compress.report.format import speed_word
from compress.targets import Target, open_target
from compress.targets.package import Asked, Brought

if TYPE_CHECKING:
    from compress.benchmark.speed import Speed

BENCH_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the command line asks for, but for the groups target and benchmark."""

    models: tuple[str, ...]  # the first is the baseline
    out: Path | None = None
    inputs: tuple[str, ...] = ()  # name=file.npy
    dims: tuple[str, ...] = ()  # name=number
    package: Path | None = None  # where to write one, in place of timing here


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Each MODEL is an ONNX file or the folder of one, such as an artifact; the first is the baseline. "
        "Words that begin with target. or benchmark. are Hydra overrides: target.threads, target.provider, "
        "benchmark.workloads, .max_seconds, .ratio_ci; target=[local,node] times on both. Inputs are made up."
    )
    parser.add_argument("words", nargs="*", metavar="MODEL", help="or group.key=value")
    parser.add_argument("--out", type=Path, help="folder for bench.json and samples.json")
    parser.add_argument("--input", action="append", default=[], metavar="NAME=FILE.npy", help="a real input")
    parser.add_argument(
        "--dim", action="append", default=[], metavar="NAME=SIZE", help="of an open dimension; 1 without"
    )
    parser.add_argument(
        "--package", type=Path, metavar="DIR", help="write what a machine needs that we cannot reach"
    )
    parser.add_argument(
        "--import", type=Path, metavar="DIR", dest="back", help="read what such a machine brought back"
    )


def run(args: argparse.Namespace, rest: Sequence[str]) -> None:
    """Time ONNX files; words that begin with `target` or `benchmark` are Hydra's."""
    words = [*args.words, *rest]
    if args.back:
        if words or args.package or args.input or args.dim:
            raise ConfigError("--import takes no models and no settings", next="compress bench --import DIR")
        read_package(args.back, args.out, console)
        return
    inputs, dims = tuple(args.input), tuple(args.dim)
    time_words(words, out=args.out, inputs=inputs, dims=dims, package=args.package)


def time_words(words: Sequence[str], **request: Any) -> None:
    """`compress bench WORDS`; `request` is the rest of a `Request`."""
    overrides = [word for word in words if re.match(r"[+~]*(target|benchmark)(\.\w+)*=", word)]
    configs = {}
    for target, of_target in on_targets(overrides).items():
        [job] = expand(of_target, sweep=False)
        # a configuration is whole or none, and a benchmark needs no checkpoint
        configs[target] = load_config([*job, "model.source=path:."])
    models = tuple(word for word in words if word not in overrides)
    for name, config in configs.items():
        if asks_to_tune(config.target):
            raise ConfigError(
                "target.tune is for runs, which make the models that it tries",
                found=f"target={name} target.tune=true",
                next="compress run with it, or compress bench with settings such as target.threads=2",
            )
    targets = {name: open_target(config.target) for name, config in configs.items()}
    bench(targets, next(iter(configs.values())).benchmark, Request(models=models, **request), console)


def bench(targets: Mapping[str, Target], timing: BenchmarkConfig, request: Request, console: Console) -> None:
    """Check, time and print; writes bench.json and samples.json into `request.out`.

    Targets of this machine are timed against each other; the baseline is the first model on the first of
    them, and on another machine the first model there.
    Raises BenchmarkError naming the model that cannot be timed, ConfigError for a wrong request.
    """
    _check_out(request.out)
    if not request.models:
        raise ConfigError("no model is named", next="compress bench a.onnx b.onnx")
    for target in targets.values():
        target.facts()
    models = find_models(request.models)
    given, dims = arrays_of(request.inputs), numbers_of(request.dims)
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
            made_up = [each for each in graphs[name].inputs if each.name not in given]
            try_once(path, own, folder / "feeds.npz", made_up)
        if request.package:
            packed = Asked(models, workloads, {}, list(given))
            write_package(request.package, targets, timing, packed, console)
            return
    parity = {
        name: same_outputs(target, models, workloads, console, name if len(targets) > 1 else "")
        for name, target in targets.items()
    }
    _measure(
        Asked(models, workloads, asdict(timing), list(given)), targets, graphs, parity, request.out, console
    )


def read_package(folder: Path, out: Path | None, console: Console) -> None:
    """Print and write what `bench` would have, had it reached the machine of a package."""
    _check_out(out)
    brought = Brought(folder)
    asked = brought.asked()
    graphs = {name: inspect(path, BenchmarkError) for name, path in asked.models.items()}
    parity = agreement(brought, asked)
    _measure(asked, {"package": brought}, graphs, parity, out, console)
    least = min(of_model["min_cosine"] for of_model in parity.values())
    console.print(f"what the models gave there: cosine {least:.6f} or more to what they give here")


def _check_out(out: Path | None) -> None:
    if out and (out / "bench.json").exists():
        raise ConfigError(
            "there is a benchmark already", found=out / "bench.json", next="name another folder"
        )


def _measure(
    asked: Asked,
    targets: Mapping[str, Target],
    graphs: Mapping[str, Graph],
    parity: Mapping[str, Any],
    out: Path | None,
    console: Console,
) -> None:
    """Time each group of targets that are timed together, print, and write what was found to `out`."""
    together = [name for name, target in targets.items() if target.interleaves]
    groups = [each for each in (together, *([n] for n in targets if n not in together)) if each]
    speeds = []
    with tempfile.TemporaryDirectory() as scratch:
        for names in groups:
            timed = _timed(asked.models, names, len(targets) > 1)
            folder = Path(scratch) / names[0]
            speeds.append(_time(timed, targets, asked, folder, console))
            shown = {name: graphs[entry.model] for name, entry in timed.items()}
            show(speeds[-1], shown, list(asked.workloads), console)
            for line in losers(speeds[-1], timed, _built_for(asked.models)):
                console.print(f"[yellow]{line}[/]", highlight=False, soft_wrap=True)
            if out:
                out.mkdir(parents=True, exist_ok=True)
                name = "samples.json" if len(speeds) == 1 else f"samples_{names[0]}.json"
                shutil.copyfile(folder / "samples.json", out / name)
    if out:
        record = _record(asked, graphs, speeds[0]) | {"parity": parity}
        if speeds[1:]:
            record["others"] = [asdict(speed) for speed in speeds[1:]]
        (out / "bench.json").write_text(json.dumps(record, indent=2) + "\n")
        console.print(f"written: {out / 'bench.json'}", soft_wrap=True)


def same_outputs(
    target: Target, models: Mapping[str, Path], workloads: Mapping[str, Feeds], console: Console, where: str
) -> dict[str, dict[str, float]]:
    """Model -> the numbers of its gate: what it computes on the target, and in onnxruntime here.

    Raises GateError where that is not the same.
    """
    from compress.benchmark.parity import check  # takes a second: no damaged file shall wait for it

    feeds = list(workloads.values())
    with target.lock():
        gates = {name: check(target, {path.stem: path}, feeds, name)[0] for name, path in models.items()}
    found = {name: gate.numbers for name, gate in gates.items()}
    apart = max(numbers["largest_relative_difference"] for numbers in found.values())
    console.print(
        f"{where + ': ' if where else ''}what models give is within {apart:.1e} of the largest number from "
        "what onnxruntime gives here",
        highlight=False,
        soft_wrap=True,
    )
    return found


def _timed(models: Mapping[str, Path], targets: Sequence[str], several: bool) -> dict[str, Entry]:
    """Name in the table -> what is timed; the target is part of the name where there are several."""
    return {
        f"{model} on {target}" if several else model: Entry(model=model, path=path, target=target)
        for target in targets
        for model, path in models.items()
    }


def _time(
    timed: Mapping[str, Entry], targets: Mapping[str, Target], asked: Asked, out: Path, console: Console
) -> "Speed":
    from compress.benchmark.timing import time_models  # takes a second: no damaged file shall wait for it

    timing = BenchmarkConfig(**asked.benchmark)
    console.print(f"timing {len(timed)} models, about {timing.max_seconds:.0f} s ...", highlight=False)
    first = targets[next(iter(timed.values())).target]
    runs_with = {name: targets[entry.target].runs_with() for name, entry in timed.items()}
    with first.lock():
        paths = {name: entry.path for name, entry in timed.items()}
        return time_models(first, timing, paths, asked.workloads, out, runs_with=runs_with)


def _built_for(models: Mapping[str, Path]) -> dict[str, str]:
    """Model -> the target it was made for, of the artifacts among them."""
    made_for = {}
    for name, path in models.items():
        beside = (folder / "manifest.json" for folder in (path.parent, path.parent.parent))  # onnx/model.onnx
        if manifest := next((each for each in beside if each.is_file()), None):
            made_for[name] = json.loads(manifest.read_text()).get("options", {}).get("target", "local")
    return made_for


def _record(asked: Asked, graphs: Mapping[str, Graph], speed: "Speed") -> dict[str, Any]:
    """The contents of bench.json: what was timed, on which arrays, and what was found."""
    return {
        "bench_version": BENCH_VERSION,
        "models": {
            name: {"path": str(path), "sha256": sha256_model(path), **asdict(graphs[name])}
            for name, path in asked.models.items()
        },
        "workloads": {
            name: {
                key: {"dtype": a.dtype.name, "shape": list(a.shape), "made_up": key not in asked.given}
                for key, a in feeds.items()
            }
            for name, feeds in asked.workloads.items()
        },
        "verdict": {
            model: {workload: speed_word(ratio) for workload, ratio in ratios.items()}
            for model, ratios in speed.speedup.items()
        },
        "speed": asdict(speed),
    }
