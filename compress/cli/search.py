"""`compress search`: the best candidate within the experiment's budget."""

import argparse
import shlex
from collections.abc import Sequence

from compress import load_config
from compress.cli.console import console
from compress.cli.job import new_runner
from compress.cli.preflight import check
from compress.config.search import SearchConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Arguments are Hydra overrides as for `run`, and objective=: one or several of "
        "quality_drop, latency, size, memory, separated by commas. Candidates are chosen on the select "
        "split; the winner alone is confirmed on test. The same command again, or at the same time, goes on "
        "with the study."
    )
    parser.add_argument("--trials", type=int, help="of the whole study; 20 without --minutes")
    parser.add_argument("--minutes", type=float, help="start no trial that would take longer than is left")
    parser.add_argument("--study", help="its name; the objectives' by default")
    parser.add_argument("--storage", help="journal file or database URL; its own journal by default")
    parser.add_argument("--sampler", default="tpe", help="tpe or nsga2")
    parser.add_argument("--seed", type=int, default=0)


def run(args: argparse.Namespace, rest: Sequence[str]) -> None:
    """`objective=` is the search's own word, the other words are Hydra's."""
    objective = ([word for word in rest if word.startswith("objective=")] or ["objective=latency"])[-1]
    objectives = tuple(filter(None, objective.partition("=")[2].strip("[]").split(",")))
    request = SearchConfig(
        objectives=objectives,
        study=args.study or "-".join(objectives) or "none",
        storage=args.storage,
        sampler=args.sampler,
        trials=20 if args.trials is None and args.minutes is None else args.trials,
        minutes=args.minutes,
        seed=args.seed,
    )
    config = load_config(*(word for word in rest if not word.startswith("objective=")))
    check([config])
    from compress.cli.candidates import Workbench  # takes seconds
    from compress.search.search import search

    search(
        config,
        request,
        Workbench(new_runner(config)),
        console,
        shlex.join(["compress", "search", *args.given]),
    )
