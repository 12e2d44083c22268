"""`compress verify ARTIFACT`: sums, graph, and a stored input and output."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from compress.artifact import verify
from compress.cli.console import console, foreign


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("artifact", type=Path)


def run(args: argparse.Namespace, rest: Sequence[str]) -> None:
    """Raises ArtifactError for an artifact that is damaged or not what its manifest says."""
    manifest = verify(args.artifact)
    told = foreign(f"{manifest.name}, {len(manifest.files)} files, from {manifest.base_model}")
    console.print(f"[green]intact[/]: {told}", highlight=False)
    if manifest.headline.get("ships") is False:
        console.print("[yellow]its run's verdict was not to ship it[/]: see README.md in it", highlight=False)
