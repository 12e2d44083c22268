"""Hydra's part: a folder for one job, or for each point of a sweep, and the job in it.

Jobs may run in other processes (hydra/launcher=joblib, ray, submitit_slurm), so that what they found is
read from their folders and never from memory.
"""

import logging
import os
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.console import Console

from compress.compose import expand, load_config, to_config, to_yaml
from compress.config import RunConfig, conf_dir, register_schemas
from compress.errors import CompressError, ConfigError
from compress.road import Road
from compress.sources import cache_dir
from compress.store import Store, disk_errors
from compress.sweep import failed, point

console = Console()
log = logging.getLogger(__name__)


def configs_of(overrides: Sequence[str], sweep: bool) -> list[RunConfig]:
    """The checked configuration of every job; raises ConfigError before anything has run."""
    jobs = expand(overrides, sweep)
    configs = [load_config(job) for job in jobs]
    seen: dict[str, list[str]] = {}
    for job, config in zip(jobs, configs, strict=True):
        twin = seen.setdefault(to_yaml(config), job)
        if twin is not job:
            raise ConfigError(
                "two points of the sweep have the same settings",
                found=f"{shlex.join(twin)} and {shlex.join(job)}",
                next="leave one out",
            )
    return configs


def launch(overrides: Sequence[str], sweep: bool) -> int:
    """Run one job in a folder of its own, or a sweep; the exit code.

    Raises CompressError where a single job fails. A failed point of a sweep is recorded in its folder
    and the others go on; the exit code is then 1.
    """
    register_schemas()
    words = list(overrides)
    folder = Path()
    if sweep:
        given = [word.partition("=")[2] for word in words if word.startswith("hydra.sweep.dir=")]
        stamp = f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"
        folder = Path(given[-1] if given else f"outputs/{configs_of(overrides, True)[0].name}/sweep-{stamp}")
        words = [*words, *([] if given else [f"hydra.sweep.dir={folder}"])]
    sys.argv = ["compress", *(["--multirun"] if sweep else []), *words]
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    failures: list[CompressError] = []
    entry = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
    if not sweep:

        def single(composed: DictConfig) -> None:
            try:
                job(composed)
            except CompressError as error:  # Hydra would bury the message in a traceback
                failures.append(error)

        entry(single)()
        if failures:
            raise failures[0]
        return 0
    entry(job)()
    return finish_sweep(folder)


def finish_sweep(folder: Path) -> int:
    """Write the sweep's reports from its points' folders, print the table; 1 where a point failed."""
    from compress.report.sweep import write_sweep
    from compress.report.sweep_table import sweep_table

    console.print(sweep_table(write_sweep(folder)))
    console.print(f"report:   {folder / 'report.html'}", soft_wrap=True)
    missing = failed(folder)
    if missing:
        console.print(f"[red]{len(missing)} failed[/]: {', '.join(f'{folder}/{name}' for name in missing)}")
    return 1 if missing else 0


def job(composed: DictConfig) -> None:
    """One run, in the folder that Hydra made for it."""
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    overrides = list(hydra_config.overrides.task)
    with disk_errors(folder, "the run's folder"):
        if hydra_config.mode is RunMode.MULTIRUN:
            with point(folder, overrides):
                _walk(composed, folder, overrides)
            if (folder / "report.json").is_file():
                point_latest(folder.parent)
        else:
            _walk(composed, folder, overrides)
            point_latest(folder)


def new_road(dry_run: bool = False) -> Road:
    return Road(Store(cache_dir() / "store"), console, dry_run)


def point_latest(folder: Path) -> None:
    """outputs/<name>/latest -> this run, replaced in one step; what is no link of ours stays."""
    link, temporary = folder.parent / "latest", folder.parent / f".latest.{os.getpid()}"
    if link.exists() and not link.is_symlink():
        return
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(folder.name)
    os.replace(temporary, link)


def _walk(composed: DictConfig, folder: Path, overrides: Sequence[str]) -> None:
    from compress.pipeline import run as run_pipeline
    from compress.report.table import console_table

    config = to_config(composed)
    (folder / "config.yaml").write_text(to_yaml(config))
    command = shlex.join(["compress", "run", *overrides])
    report = run_pipeline(config, folder, new_road(), command)
    assert report is not None  # only a dry run has none
    console.print(console_table(report))
    verdict = report.verdict
    color = "green" if verdict.ships else "yellow"
    word = "ships" if verdict.ships else "does not meet the budget; kept as the best there is"
    console.print(f"[{color}]{verdict.best}[/] {word}:")
    for reason in verdict.reasons:
        console.print(f"  - {reason}", highlight=False)
    log.info("%s %s: %s", verdict.best, word, "; ".join(verdict.reasons))
    for line in report.notes["noise"]:
        console.print(f"  [yellow]noise:[/] {line}", highlight=False)
    console.print(f"report:   {folder / 'report.html'}\nartifact: {folder / 'artifact'}", soft_wrap=True)
