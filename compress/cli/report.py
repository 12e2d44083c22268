"""`compress report FOLDER`: the reports of a run or a sweep, drawn again from its files."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from compress.cli.job import show
from compress.cli.sweep import finish_sweep
from compress.errors import ArtifactError
from compress.report import redraw
from compress.schema.report import Report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path)


def run(args: argparse.Namespace, rest: Sequence[str]) -> int:
    """Raises ArtifactError for a folder that holds neither a finished run nor a sweep."""
    if next(args.folder.glob("*/point.json"), None):
        return finish_sweep(args.folder)
    if not (args.folder / "report.json").is_file():
        near = (args.folder / "latest", args.folder.absolute().parent)  # given the experiment, the artifact
        meant = next((folder for folder in near if (folder / "report.json").is_file()), None)
        raise ArtifactError(
            "no finished run and no sweep in this folder",
            found=f"no report.json in {args.folder}" if args.folder.is_dir() else f"no folder {args.folder}",
            allowed="the folder of a finished run or of a sweep, e.g. outputs/minilm/latest",
            next=f"compress report {meant}" if meant else None,
        )
    redraw(args.folder)
    show(Report.load(args.folder / "report.json"), args.folder)
    return 0
