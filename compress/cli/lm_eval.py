"""`compress lm-eval ARTIFACT --tasks ...`: tasks of EleutherAI's lm-evaluation-harness on what ships."""

import argparse
from collections.abc import Sequence
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Needs the extra: pip install '.[lm-eval]'. A task takes its data from the hub or from "
        "files that it names; functions that it names are run. Decoding is greedy, without a chat template."
    )
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--tasks", required=True, metavar="NAME,NAME", help="`lm-eval ls tasks` lists them")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N examples of each task alone")
    parser.add_argument("--include", type=Path, metavar="FOLDER", help="of task YAMLs, beside lm-eval's own")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="values and standard errors")


def run(args: argparse.Namespace, rest: Sequence[str]) -> None:
    from compress.cli.lm_eval_tasks import run_tasks  # needs the extra

    names = tuple(dict.fromkeys(name.strip() for name in args.tasks.split(",") if name.strip()))
    run_tasks(args.artifact, names, args.limit, args.include, args.out)
