"""`compress run`: an experiment, or each point of a sweep over its settings."""

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import hydra
from omegaconf import DictConfig

from compress.cli.console import console
from compress.cli.job import job, new_runner
from compress.cli.preflight import check, disk, needed
from compress.cli.sweep import run_sweep
from compress.config.compose import expand, grid, load_config, to_yaml
from compress.config.run import RunConfig, conf_dir, register_schemas
from compress.errors import CompressError, ConfigError
from compress.models.needs import machine_memory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Arguments are Hydra overrides: group=option, group.key=value; -m sweeps over values "
        "separated by commas. `compress list` prints groups and options."
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be reused and what run")
    parser.add_argument("-m", "--multirun", action="store_true", help="a run for each of key=a,b")


def run(args: argparse.Namespace, rest: Sequence[str]) -> int:
    """Check the configuration of every job before the first one starts."""
    rest, targets = swept_targets(rest)
    sweep = args.multirun or bool(grid(rest)) or bool(targets)
    configs = configs_of(rest, sweep)
    check(configs)
    if args.dry_run:
        from compress.pipeline import run as run_pipeline

        for config in configs:
            if (needs := needed(config)) is not None:
                (free, _), memory = disk(), machine_memory() or 0
                console.print(
                    f"at least {needs.memory / 1e9:.1f} GB of memory (here {memory / 1e9:.1f}) and "
                    f"{needs.disk / 1e9:.1f} of disk ({free / 1e9:.1f} free), but for stages that are reused",
                    highlight=False,
                )
            run_pipeline(config, Path(), new_runner(config, dry_run=True))
        return 0
    if sweep:
        return run_sweep(rest, configs[0].name, _hydra, targets)
    _run_alone(rest)
    return 0


def swept_targets(words: Sequence[str]) -> tuple[list[str], str]:
    """`target=[a,b]` is a run for each, and what they ship is timed on all: the words of the sweep, and that
    word; empty where the run has one target."""
    several = next((word for word in words if word.startswith("target=[")), "")
    swept = several.replace("[", "").replace("]", "")
    return [swept if word == several else word for word in words], several


def configs_of(overrides: Sequence[str], sweep: bool) -> list[RunConfig]:
    """The checked configuration of every job; raises ConfigError before anything has run."""
    jobs = expand(overrides, sweep)
    configs = [load_config(job) for job in jobs]
    seen: dict[str, list[str]] = {}
    for words, config in zip(jobs, configs, strict=True):
        twin = seen.setdefault(to_yaml(config), words)
        if twin is not words:
            raise ConfigError(
                "two points of the sweep have the same settings",
                found=f"{shlex.join(twin)} and {shlex.join(words)}",
                next="leave one out",
            )
    return configs


def _run_alone(overrides: Sequence[str]) -> None:
    """One job in a folder of its own; raises the CompressError with which it fails."""
    failures: list[CompressError] = []

    def single(composed: DictConfig) -> None:
        try:
            job(composed)
        except CompressError as error:  # Hydra would bury the message in a traceback
            failures.append(error)

    _hydra(single, overrides)()
    if failures:
        raise failures[0]


def _hydra(task: Callable[[DictConfig], None], words: Sequence[str]) -> Callable[[], None]:
    """`task` as Hydra starts it, which reads `words` from the command line."""
    register_schemas()
    sys.argv = ["compress", *words]
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    entry: Callable[[], None] = hydra.main(
        version_base="1.3", config_path=str(conf_dir()), config_name="config"
    )(task)
    return entry
