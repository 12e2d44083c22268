"""`compress compare A B ...`: finished runs, whichever they are, in one table and one picture, as a sweep."""

import argparse
import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from compress.cli.points import point
from compress.cli.sweep import finish_sweep
from compress.errors import ArtifactError, ConfigError
from compress.schema.report import Report

_OF_REPORT = (".json", ".html", ".md", ".svg", ".csv")
_NOT_COMPARED = ("name", "benchmark", "budget")  # how a run is called and timed, and what it was to reach
_LONGEST = 60  # characters of a value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a run, or its artifact")
    parser.add_argument(
        "--out", type=Path, help="a folder that does not exist; by default outputs/compare-TIME"
    )


def run(args: argparse.Namespace, rest: Sequence[str]) -> int:
    """Raises ArtifactError for a folder without a report, ConfigError for one run or a useless `--out`."""
    folders = [_folder(each) for each in args.runs]
    if len(set(folders)) < 2:
        raise ConfigError("nothing to compare with", found=", ".join(map(str, args.runs)), allowed="two runs")
    out = args.out or Path(f"outputs/compare-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}")
    if out.exists():
        raise ConfigError("the folder exists", found=out, next="name a new one, or leave out --out")
    if inside := [folder for folder in folders if folder in out.resolve().parents]:
        raise ConfigError("--out lies in a run", found=inside[0], allowed="a folder elsewhere")
    reports = [Report.load(folder / "report.json") for folder in folders]
    if len(tasks := {report.options.get("evaluate", "") for report in reports}) > 1:
        raise ConfigError(
            "the runs are of different tasks", found=", ".join(sorted(tasks)), allowed="one task at a time"
        )
    settings = [dict(_settings(report)) for report in reports]
    try:
        out.mkdir(parents=True)
    except OSError as error:
        raise ConfigError("--out cannot be made", found=f"{out}: {error.strerror}") from None
    for number, folder in enumerate(folders):
        copy = out / str(number)
        copy.mkdir()
        with point(copy, [f"run={args.runs[number]}", *different(settings, number)]):
            for file in folder.iterdir():
                if file.suffix in _OF_REPORT:
                    shutil.copy(file, copy)
    return finish_sweep(out)


def different(settings: Sequence[Mapping[str, Any]], number: int) -> Iterator[str]:
    """What of the settings of a run is not the same in all of them.

    Those of a group are held against the runs that have the same option of it: what int8_dynamic and
    int4_blocks are set to is told by their names.
    """
    own = settings[number]
    for key, value in own.items():
        group = key.partition(".")[0]
        alike = [each for each in settings if key == group or each.get(group) == own.get(group)]
        if len({str(each.get(key)) for each in alike}) > 1:
            yield f"{key}={_short(str(value))}"


def _short(value: str) -> str:
    """One line that a column of a table holds."""
    line = " ".join(value.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 20]}...{line[-17:]}"


def _folder(given: Path) -> Path:
    """Of the run that made it."""
    for folder in (given, given.resolve().parent, given / "latest"):
        if (folder / "report.json").is_file():
            return folder.resolve()
    raise ArtifactError(
        "no finished run in this folder",
        found=f"no report.json in {given}" if given.is_dir() else f"no folder {given}",
        allowed="the folder of a finished run, or the artifact in it, e.g. outputs/minilm/latest",
    )


def _settings(report: Report) -> Iterator[tuple[str, Any]]:
    """Options of groups, then what their settings are."""
    yield from report.options.items()
    for group, value in report.config.items():
        if group not in _NOT_COMPARED:
            yield from _flat(group, value)


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _flat(f"{name}.{key}", each)
    else:
        yield name, value
