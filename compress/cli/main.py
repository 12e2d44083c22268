"""compress run | train | search | report | verify | generate | lm-eval | reproduce | bench | cache | list."""

import argparse
import logging
import shlex
import sys
import traceback
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.table import Table

from compress.cli.run import configs_of, console, finish_sweep, launch, new_road, show
from compress.config.compose import expand, grid, load_config, options
from compress.config.model import ImageClassifierModel
from compress.config.recover import Supervised
from compress.config.run import RunConfig
from compress.config.search import SearchConfig
from compress.config.target import LocalTarget
from compress.errors import ArtifactError, CompressError, ConfigError, SourceError, did_you_mean
from compress.sources import cache_dir
from compress.stages.store import Store, disk_errors

_RUN_FLAGS = ("--dry-run", "--debug", "-m", "--multirun", "--help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; 0 when done, 1 on an error that is the user's to mend, 130 on Ctrl-C."""
    args, rest = _parser().parse_known_args(arguments)
    args.given = sys.argv[1:] if arguments is None else list(arguments)
    if rest and args.command not in ("run", "train", "search", "bench"):
        _parser().error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        with disk_errors(Path.cwd(), "this folder"):
            return int(args.function(args, rest) or 0)
    except KeyboardInterrupt:
        print("\ninterrupted: finished stages are kept, the next run takes up after them", file=sys.stderr)
        return 130
    except CompressError as error:
        if args.debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return 1


def run(args: argparse.Namespace, rest: Sequence[str]) -> int:
    """Check the configuration of every job before the first one starts."""
    for word in rest:
        if word.startswith("-"):
            raise ConfigError("unknown flag", found=word, allowed=did_you_mean(word, _RUN_FLAGS))
    sweep = args.multirun or bool(grid(rest))
    configs = configs_of(rest, sweep)
    for config in configs:
        _look_for_sources(config)
    if not args.dry_run:
        return launch(rest, sweep)
    from compress.pipeline import run as run_pipeline

    for config in configs:
        run_pipeline(config, Path(), new_road(dry_run=True))
    return 0


def train(args: argparse.Namespace, rest: Sequence[str]) -> None:
    """Make the baseline that an experiment starts from."""
    for word in rest:
        if word.startswith("-"):
            raise ConfigError("unknown flag", found=word, next="compress train --help")
    [overrides] = expand(rest, sweep=False)
    config = load_config(overrides)
    from compress.cli.train import train as run_train

    logging.basicConfig(format="%(message)s")
    logging.getLogger("compress").setLevel(logging.INFO)  # an epoch takes minutes
    console.print(f"checkpoint: {run_train(config, new_road())}", soft_wrap=True)


def search(args: argparse.Namespace, rest: Sequence[str]) -> None:
    """The best candidate within the experiment's budget; `objective=` is the search's, the rest Hydra's."""
    for word in rest:
        if word.startswith("-"):
            raise ConfigError("unknown flag", found=word, next="compress search --help")
    objective = ([word for word in rest if word.startswith("objective=")] or ["objective=latency"])[-1]
    objectives = tuple(filter(None, objective.partition("=")[2].strip("[]").split(",")))
    [overrides] = expand([word for word in rest if not word.startswith("objective=")], sweep=False)
    request = SearchConfig(
        objectives=objectives,
        study=args.study or "-".join(objectives) or "none",
        storage=args.storage,
        sampler=args.sampler,
        trials=20 if args.trials is None and args.minutes is None else args.trials,
        minutes=args.minutes,
        seed=args.seed,
    )
    config = load_config(overrides)
    _look_for_sources(config)
    from compress.cli.candidates import Workbench
    from compress.search.search import search as run_search

    command = shlex.join(["compress", "search", *args.given])
    run_search(config, request, Workbench(new_road()), console, command)


def list_options(args: argparse.Namespace, _: Sequence[str]) -> None:
    """Options of every group, or of the one that is named."""
    found = options()
    if args.group and args.group not in found:
        raise ConfigError("unknown group", found=args.group, allowed=did_you_mean(args.group, found))
    table = Table("group", "option", "what")
    for group in [args.group] if args.group else found:
        for option, what in found[group].items():
            table.add_row(group, option, what)
    console.print(table)


def verify(args: argparse.Namespace, _: Sequence[str]) -> None:
    from compress.artifact import verify as verify_artifact

    manifest = verify_artifact(args.artifact)
    console.print(
        f"[green]intact[/]: {manifest.name}, {len(manifest.files)} files, from {manifest.base_model}",
        highlight=False,
    )
    if manifest.headline.get("ships") is False:
        console.print("[yellow]its run's verdict was not to ship it[/]: see README.md in it", highlight=False)


def generate(args: argparse.Namespace, _: Sequence[str]) -> None:
    """Text from an artifact that is a language model."""
    from compress.cli.generate import Request, print_text

    print_text(
        args.artifact,
        Request(
            prompt=args.prompt,
            max_new_tokens=args.max_new_tokens,
            temperature=args.temperature,
            top_p=args.top_p,
            seed=args.seed,
            chat=args.chat,
        ),
    )


def lm_eval(args: argparse.Namespace, _: Sequence[str]) -> None:
    """Tasks of lm-evaluation-harness on an artifact that is a language model."""
    from compress.cli.lm_eval import run as run_tasks

    names = tuple(dict.fromkeys(name.strip() for name in args.tasks.split(",") if name.strip()))
    run_tasks(args.artifact, names, args.limit, args.include, args.out)


def bench(args: argparse.Namespace, rest: Sequence[str]) -> None:
    """Time ONNX files; words that begin with `target` are Hydra's."""
    words = [*args.words, *rest]
    for word in words:
        if word.startswith("-"):
            raise ConfigError("unknown flag", found=word, next="compress bench --help")
    overrides = [word for word in words if word.startswith(("target=", "target."))]
    [job] = expand(overrides, sweep=False)
    # a configuration is whole or none, and a benchmark needs no checkpoint
    target = load_config([*job, "model.source=path:."]).target
    if not isinstance(target, LocalTarget):
        raise ConfigError("compress bench times on this machine only", found=type(target).__name__)
    from compress.cli.bench import Request
    from compress.cli.bench import bench as run_bench

    models = tuple(word for word in words if word not in overrides)
    request = Request(models=models, out=args.out, inputs=tuple(args.input), dims=tuple(args.dim))
    run_bench(target, request, console)


def reproduce(args: argparse.Namespace, _: Sequence[str]) -> int:
    """Make an artifact again and compare; 0 where model.onnx is the same to the last bit."""
    from compress.artifact import verify as verify_artifact
    from compress.cli.main import reproduce as again

    manifest = verify_artifact(args.artifact)
    _look_for_sources(again.config_of(manifest))
    folder = Path(f"outputs/{manifest.name}/reproduced-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}")
    found = again.reproduce(args.artifact, folder, console)
    console.print(again.table(found))
    word = "[green]the same model[/]" if found.same else "[red]another model[/]"
    console.print(f"{word}: {folder / 'artifact'}", soft_wrap=True)
    return 0 if found.same else 1


def report(args: argparse.Namespace, _: Sequence[str]) -> int:
    from compress.report import redraw
    from compress.schema.report import Report

    if next(args.folder.glob("*/point.json"), None):
        return finish_sweep(args.folder)
    if not (args.folder / "report.json").is_file():
        near = (args.folder / "latest", args.folder.absolute().parent)  # given the experiment, the artifact
        meant = next((each for each in near if (each / "report.json").is_file()), None)
        raise ArtifactError(
            "no finished run and no sweep in this folder",
            found=f"no report.json in {args.folder}" if args.folder.is_dir() else f"no folder {args.folder}",
            allowed="the folder of a finished run or of a sweep, e.g. outputs/minilm/latest",
            next=f"compress report {meant}" if meant else None,
        )
    redraw(args.folder)
    show(Report.load(args.folder / "report.json"), args.folder)
    return 0


def cache(args: argparse.Namespace, _: Sequence[str]) -> None:
    """List the store, or remove the old and the surplus."""
    from compress.cli.main import cache as kept

    store = Store(cache_dir() / "store")
    older_than = kept.seconds(args.older_than) if args.older_than else None
    max_size = kept.size(args.max_size) if args.max_size else None
    if older_than is None and max_size is None:
        table = Table("last used", "stage", "MB", "digest")
        for entry in kept.held(store):
            when = f"{datetime.fromtimestamp(entry.used):%Y-%m-%d %H:%M}"
            table.add_row(when, entry.stage, f"{entry.size_bytes / 1e6:.1f}", entry.digest)
        console.print(table)
        console.print(f"{sum(e.size_bytes for e in kept.held(store)) / 1e6:.1f} MB in {store.root}")
        return
    gone = kept.prune(store, older_than, max_size)
    console.print(f"removed {len(gone)} entries, {sum(entry.size_bytes for entry in gone) / 1e6:.1f} MB")


def _look_for_sources(config: object) -> None:
    """A path that does not exist must not cost the seconds in which torch is loaded."""
    from compress.sources import fetch

    if isinstance(config, RunConfig):
        _look_for_baseline(config)
    if not is_dataclass(config):
        for value in config.values() if isinstance(config, dict) else ():
            _look_for_sources(value)
        return
    for item in fields(config):
        value = getattr(config, item.name)
        if item.name in ("source", "texts") and isinstance(value, str):
            if not value.startswith(("hf:", "package:", "debian:")):
                fetch(value)
        else:
            _look_for_sources(value)


def _look_for_baseline(config: RunConfig) -> None:
    """Raise SourceError where the model is what `compress train` would make, and has not made yet."""
    if not isinstance(config.train, Supervised) or not isinstance(config.model, ImageClassifierModel):
        return
    scheme, _, name = config.model.source.partition(":")
    if scheme == "path" and not Path(name).expanduser().exists():
        raise SourceError(
            "the baseline of this experiment is not trained yet",
            found=f"no folder {Path(name).expanduser().absolute()}",
            next=f"compress train experiment={config.name}",
        )


def _parser() -> argparse.ArgumentParser:
    debug = argparse.ArgumentParser(add_help=False)
    debug.add_argument("--debug", action="store_true", help="show tracebacks")
    parser = argparse.ArgumentParser(
        prog="compress", description="prune, quantize and measure models: a checkpoint in, an ONNX file out"
    )
    commands = parser.add_subparsers(dest="command", required=True)

    command = commands.add_parser(
        "run",
        parents=[debug],
        help="run an experiment: compress run experiment=minilm prune.keep.ffn=0.75",
        description="Arguments are Hydra overrides: group=option, group.key=value; -m sweeps over values "
        "separated by commas. `compress list` prints groups and options.",
    )
    command.add_argument("--dry-run", action="store_true", help="say what would be reused and what run")
    command.add_argument("-m", "--multirun", action="store_true", help="a run for each of key=a,b")
    command.set_defaults(function=run)

    command = commands.add_parser(
        "search",
        parents=[debug],
        help="search the best within a budget: compress search experiment=minilm objective=latency",
        description="Arguments are Hydra overrides as for `run`, and objective=: one or several of "
        "quality_drop, latency, size, memory, separated by commas. Candidates are chosen on the select "
        "split; the winner alone is confirmed on test. The same command again, or at the same time, goes on "
        "with the study.",
    )
    command.add_argument("--trials", type=int, help="of the whole study; 20 without --minutes")
    command.add_argument("--minutes", type=float, help="start no trial that would take longer than is left")
    command.add_argument("--study", help="its name; the objectives' by default")
    command.add_argument("--storage", help="journal file or database URL; its own journal by default")
    command.add_argument("--sampler", default="tpe", help="tpe or nsga2")
    command.add_argument("--seed", type=int, default=0)
    command.set_defaults(function=search)

    command = commands.add_parser(
        "train",
        parents=[debug],
        help="train an experiment's baseline: compress train experiment=fashion_resnet",
        description="Arguments are Hydra overrides as for `run`. The checkpoint appears in the folder that "
        "model.source names; an interrupted training goes on after its last epoch.",
    )
    command.set_defaults(function=train)

    command = commands.add_parser("list", parents=[debug], help="experiments and options of each group")
    command.add_argument("group", nargs="?")
    command.set_defaults(function=list_options)

    command = commands.add_parser("verify", parents=[debug], help="check an artifact folder")
    command.add_argument("artifact", type=Path)
    command.set_defaults(function=verify)

    command = commands.add_parser(
        "generate",
        parents=[debug],
        help='text from a shipped language model: compress generate ARTIFACT --prompt "Once upon a time"',
        description="Text goes to stdout as it is made, tokens a second to stderr.",
    )
    command.add_argument("artifact", type=Path)
    command.add_argument("--prompt", required=True)
    command.add_argument("--max-new-tokens", type=int, default=128)
    command.add_argument("--temperature", type=float, default=0.0, help="0: always the most likely token")
    command.add_argument("--top-p", type=float, default=1.0, help="probability of the tokens to sample from")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--chat", action="store_true", help="put the prompt into the model's chat template")
    command.set_defaults(function=generate)

    command = commands.add_parser(
        "lm-eval",
        parents=[debug],
        help="lm-evaluation-harness on a shipped language model: compress lm-eval ARTIFACT --tasks arc_easy",
        description="Needs the extra: pip install '.[lm-eval]'. A task takes its data from the hub or from "
        "files that it names; functions that it names are run. Decoding is greedy, without a chat template.",
    )
    command.add_argument("artifact", type=Path)
    command.add_argument("--tasks", required=True, metavar="NAME,NAME", help="`lm-eval ls tasks` lists them")
    command.add_argument("--limit", type=int, metavar="N", help="the first N examples of each task alone")
    command.add_argument("--include", type=Path, metavar="FOLDER", help="of task YAMLs, beside lm-eval's own")
    command.add_argument("--out", type=Path, metavar="FILE.json", help="values and standard errors")
    command.set_defaults(function=lm_eval)

    command = commands.add_parser(
        "bench",
        parents=[debug],
        help="time ONNX files against each other: compress bench a.onnx b.onnx target.workloads=[1x128]",
        description="Each MODEL is a file or a folder with model.onnx in it; the first is the baseline. "
        "Words that begin with target. are Hydra overrides: target.threads, .workloads, .max_seconds, "
        ".ratio_ci. Inputs are made up from the graph.",
    )
    command.add_argument("words", nargs="+", metavar="MODEL", help="or target.key=value")
    command.add_argument("--out", type=Path, help="folder for bench.json and samples.json")
    command.add_argument("--input", action="append", default=[], metavar="NAME=FILE.npy", help="a real input")
    command.add_argument(
        "--dim", action="append", default=[], metavar="NAME=SIZE", help="of an open dimension; 1 without"
    )
    command.set_defaults(function=bench)

    command = commands.add_parser(
        "reproduce", parents=[debug], help="make an artifact again from its manifest and compare the files"
    )
    command.add_argument("artifact", type=Path)
    command.set_defaults(function=reproduce)

    command = commands.add_parser("cache", parents=[debug], help="list finished stages; remove old ones")
    command.add_argument("--older-than", metavar="7d", help="remove what was unused for that long")
    command.add_argument("--max-size", metavar="5GB", help="remove the longest unused beyond that size")
    command.set_defaults(function=cache)

    command = commands.add_parser(
        "report", parents=[debug], help="redraw the reports of a run or a sweep from its files"
    )
    command.add_argument("folder", type=Path)
    command.set_defaults(function=report)
    return parser


if __name__ == "__main__":
    sys.exit(main())
