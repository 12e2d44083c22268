"""`compress list [GROUP]`: experiments, and the options of each group."""

import argparse
from collections.abc import Sequence

from rich.table import Table

from compress.cli.console import console
from compress.config.compose import options
from compress.errors import ConfigError, did_you_mean


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("group", nargs="?")


def run(args: argparse.Namespace, rest: Sequence[str]) -> None:
    """Print the options of every group, or of the one that is named."""
    groups = options()
    if args.group and args.group not in groups:
        raise ConfigError("unknown group", found=args.group, allowed=did_you_mean(args.group, groups))
    table = Table("group", "option", "what")
    for group in [args.group] if args.group else groups:
        for option, what in groups[group].items():
            table.add_row(group, option, what)
    console.print(table)
