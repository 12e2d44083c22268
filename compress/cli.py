"""compress run | list | verify | report."""

import argparse
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from compress.compose import expand, load_config, options, to_config, to_yaml
from compress.config import SearchConfig, conf_dir, register_schemas
from compress.errors import CompressError, ConfigError, did_you_mean
from compress.store import disk_errors

if TYPE_CHECKING:
    from compress.road import Road

console = Console()
_RUN_FLAGS = ("--dry-run", "--debug", "-m", "--multirun", "--help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; 0 when done, 1 on an error that is the user's to mend, 130 on Ctrl-C."""
    args, rest = _parser().parse_known_args(arguments)
    args.given = sys.argv[1:] if arguments is None else list(arguments)
    if rest and args.command not in ("run", "search"):
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
    """Check the configuration of every job, then let Hydra make a folder for each and start it there."""
    for word in rest:
        if word.startswith("-"):
            raise ConfigError("unknown flag", found=word, allowed=did_you_mean(word, _RUN_FLAGS))
    configs = [load_config(overrides) for overrides in expand(rest, args.multirun)]
    for config in configs:
        _look_for_sources(config)
    if args.dry_run:
        from compress.pipeline import run as run_pipeline

        for config in configs:
            run_pipeline(config, Path(), _road(dry_run=True))
        return 0
    register_schemas()
    failures: list[CompressError] = []

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
    def job(composed: DictConfig) -> None:
        folder = Path(HydraConfig.get().runtime.output_dir)
        try:
            with disk_errors(folder, "the run's folder"):
                _job(composed, folder)
        except CompressError as error:  # Hydra would bury the message in a traceback and end a sweep
            failures.append(error)

    sys.argv = ["compress", *(["--multirun"] if args.multirun else []), *rest]
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    job()
    for error in failures[:-1]:
        print(f"error: {error}", file=sys.stderr)
    if failures:
        raise failures[-1]
    return 0


def _job(composed: DictConfig, folder: Path) -> None:
    from compress.pipeline import run as run_pipeline
    from compress.report.table import console_table

    config = to_config(composed)
    (folder / "config.yaml").write_text(to_yaml(config))
    command = shlex.join(["compress", "run", *HydraConfig.get().overrides.task])
    report = run_pipeline(config, folder, _road(), command)
    if report is None:
        return
    _point_latest(folder, sweep=HydraConfig.get().mode is RunMode.MULTIRUN)
    console.print(console_table(report))
    verdict = report.verdict
    color = "green" if verdict.ships else "yellow"
    word = "ships" if verdict.ships else "does not meet the budget; kept as the best there is"
    console.print(f"[{color}]{verdict.best}[/] {word}:")
    for reason in verdict.reasons:
        console.print(f"  - {reason}", highlight=False)
    for line in report.notes["noise"]:
        console.print(f"  [yellow]noise:[/] {line}", highlight=False)
    console.print(f"report:   {folder / 'report.html'}\nartifact: {folder / 'artifact'}", soft_wrap=True)


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
    from compress.candidates import Workbench
    from compress.search import search as run_search

    command = shlex.join(["compress", "search", *args.given])
    run_search(config, request, Workbench(_road()), console, command)


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


def report(args: argparse.Namespace, _: Sequence[str]) -> None:
    from compress.report import redraw
    from compress.report.table import console_table
    from compress.result import Report

    redraw(args.folder)
    console.print(console_table(Report.load(args.folder / "report.json")))
    console.print(f"report: {args.folder / 'report.html'}", soft_wrap=True)


def _look_for_sources(config: object) -> None:
    """A path that does not exist must not cost the seconds in which torch is loaded."""
    from compress.sources import fetch

    if not is_dataclass(config):
        for value in config.values() if isinstance(config, dict) else ():
            _look_for_sources(value)
        return
    for item in fields(config):
        value = getattr(config, item.name)
        if item.name in ("source", "texts") and isinstance(value, str):
            if not value.startswith(("hf:", "package:")):
                fetch(value)
        else:
            _look_for_sources(value)


def _road(dry_run: bool = False) -> "Road":
    from compress.road import Road
    from compress.sources import cache_dir
    from compress.store import Store

    return Road(Store(cache_dir() / "store"), console, dry_run)


def _point_latest(folder: Path, sweep: bool = False) -> None:
    """outputs/<name>/latest -> this run, replaced in one step; what is no link of ours stays."""
    parent = folder.parents[1] if sweep else folder.parent
    link, temporary = parent / "latest", parent / f".latest.{os.getpid()}"
    if link.exists() and not link.is_symlink():
        return
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(folder.relative_to(parent))
    os.replace(temporary, link)


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

    command = commands.add_parser("list", parents=[debug], help="experiments and options of each group")
    command.add_argument("group", nargs="?")
    command.set_defaults(function=list_options)

    command = commands.add_parser("verify", parents=[debug], help="check an artifact folder")
    command.add_argument("artifact", type=Path)
    command.set_defaults(function=verify)

    command = commands.add_parser("report", parents=[debug], help="redraw a run's reports from report.json")
    command.add_argument("folder", type=Path)
    command.set_defaults(function=report)
    return parser


if __name__ == "__main__":
    sys.exit(main())
