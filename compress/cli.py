"""compress run | list | verify | report | bench."""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from compress.compose import load_config, options, to_config, to_yaml
from compress.config import conf_dir, register_schemas
from compress.errors import CompressError, ConfigError, did_you_mean

console = Console()


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; 0 when done, 1 on an error that is the user's to mend, 130 on Ctrl-C."""
    args, rest = _parser().parse_known_args(arguments)
    if rest and args.command != "run":
        _parser().error(f"unrecognized arguments: {' '.join(rest)}")
    try:
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
    """Check the configuration, then let Hydra make the run's folder and start the job in it."""
    flags = [word for word in rest if word.startswith("-")]
    overrides = [word for word in rest if not word.startswith("-")]
    config = load_config([word for word in overrides if not word.startswith("hydra")])
    if args.dry_run:
        from compress.pipeline import run as run_pipeline

        run_pipeline(config, Path(), _road(dry_run=True))
        return 0
    register_schemas()
    failures: list[BaseException] = []

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
    def job(composed: DictConfig) -> None:
        try:
            _job(composed, Path(HydraConfig.get().runtime.output_dir))
        except CompressError as error:  # Hydra would bury the message in a traceback
            failures.append(error)

    sys.argv = ["compress", *flags, *overrides]
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    job()
    if failures:
        raise failures[0]
    return 0


def _job(composed: DictConfig, folder: Path) -> None:
    from compress.pipeline import run as run_pipeline
    from compress.report.table import console_table

    config = to_config(composed)
    (folder / "config.yaml").write_text(to_yaml(config))
    report = run_pipeline(config, folder, _road())
    if report is None:
        return
    _point_latest(folder)
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


def _road(dry_run: bool = False):  # type: ignore[no-untyped-def]
    from compress.road import Road
    from compress.sources import cache_dir
    from compress.store import Store

    return Road(Store(cache_dir() / "store"), console, dry_run)


def _point_latest(folder: Path) -> None:
    """outputs/<name>/latest -> this run, replaced in one step."""
    link = folder.parent / "latest"
    temporary = folder.parent / f".latest.{os.getpid()}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(folder.name)
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
    command.set_defaults(function=run)

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
