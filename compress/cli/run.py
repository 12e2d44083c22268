"""Hydra's part: a folder for one job, or for each point of a sweep, and the job in it.

Jobs may run in other processes (hydra/launcher=joblib, ray, submitit_slurm), so that what they found is
read from their folders and never from memory.
"""

import logging
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape

from compress.cli.points import alive, failed, point, settle
from compress.config.compose import expand, load_config, to_config, to_yaml
from compress.config.run import RunConfig, conf_dir, register_schemas
from compress.errors import CompressError, ConfigError
from compress.schema.report import Report
from compress.sources import cache_dir
from compress.stages.runner import Road
from compress.stages.store import Store, disk_errors

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
        folder = _sweep_folder(words)
        # A worker may have another working folder and another environment.
        shared = f"++hydra.job.env_set.COMPRESS_CACHE={_quoted(cache_dir())}"
        if "hydra/launcher=ray" in words:  # its plugin asks for 75 MB, which a running cluster refuses
            words = [*words, "++hydra.launcher.ray.init.object_store_memory=null"]
        words = [shared, *words, f"hydra.sweep.dir={_quoted(folder.absolute())}"]
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
    jobs = expand(overrides, True)
    _refuse_another_sweep(folder, len(jobs))
    for number, words in enumerate(jobs):
        own = [word for word in words if any(word not in other for other in jobs)]
        console.print(f"[bold]#{number}[/] {escape(' '.join(own))}", highlight=False, soft_wrap=True)
    return _run_points(entry(job), folder, jobs)


def _run_points(run: Callable[[], None], folder: Path, jobs: Sequence[Sequence[str]]) -> int:
    """Run a sweep; where its launcher breaks, report what had finished and name the rest."""
    try:
        run()
    except CompressError:
        raise
    except Exception as error:  # each launcher has exceptions of its own for a worker that is gone
        cause = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        if next(folder.glob("*/point.json"), None) is None:
            raise ConfigError(
                "the launcher of the sweep failed before any point began",
                found=cause,
                next="see the settings of hydra.launcher, or leave out hydra/launcher= to run in order here",
            ) from error
        lost = settle(folder, jobs)
        finish_sweep(folder)
        if not lost:  # a bug in a point, recorded there
            raise
        console.print(f"[red]a worker vanished[/]: {escape(cause)}", highlight=False)
        again = f"hydra.sweep.dir={folder}"
        console.print(f"finished stages are kept: the same command with {again} takes up", soft_wrap=True)
        return 1
    settle(folder, jobs)
    return finish_sweep(folder)


def _sweep_folder(words: Sequence[str]) -> Path:
    """`hydra.sweep.dir`, else a new one named by the time."""
    parsed = OverridesParser.create().parse_overrides(list(words))
    given = [o.value() for o in parsed if o.get_key_element() == "hydra.sweep.dir"]
    if given:
        return Path(str(given[-1]))
    stamp = f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"
    return Path(f"outputs/{configs_of(words, True)[0].name}/sweep-{stamp}")


def _refuse_another_sweep(folder: Path, points: int) -> None:
    """A report of this sweep must not hold the points of a larger one that ran in the same folder."""
    older = [path.parent.name for path in folder.glob("[0-9]*/point.json")]
    if surplus := sorted((name for name in older if int(name) >= points), key=int):
        raise ConfigError(
            "hydra.sweep.dir holds another sweep",
            found=f"{folder} with a point {surplus[0]}, where this one has {points} points",
            next="name a new folder, or leave hydra.sweep.dir out",
        )


def _quoted(path: Path) -> str:
    """As a value in Hydra's grammar."""
    return "'" + str(path).replace("'", r"\'") + "'"


def finish_sweep(folder: Path) -> int:
    """Write the sweep's reports from its points' folders, print the table; 1 where a point failed."""
    from compress.judge.sweep import write_sweep
    from compress.report.sweep_table import sweep_table

    console.print(sweep_table(write_sweep(folder), console.width))
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
            number = "" if hydra_config.runtime.choices["hydra/launcher"] == "basic" else folder.name
            if not number:
                console.print(f"[bold]#{folder.name}[/]")
            with alive(folder), point(folder, overrides):
                os.chdir(hydra_config.runtime.cwd)  # relative paths are relative to where the sweep began
                _walk(composed, folder, overrides, number)
            if (folder / "report.json").is_file():
                point_latest(folder.parent)
        else:
            try:
                _walk(composed, folder, overrides)
            except BaseException as error:  # also Ctrl-C: whatever ended it, its log stays and is named
                log.info("stopped by %s: %s", type(error).__name__, error)
                console.print(f"log:      {folder / 'run.log'}", soft_wrap=True)
                raise
            point_latest(folder)


def new_road(dry_run: bool = False, point: str = "") -> Road:
    return Road(Store(cache_dir() / "store"), console, dry_run, point=point)


def point_latest(folder: Path) -> None:
    """outputs/<name>/latest -> this run, replaced in one step; what is no link of ours stays."""
    link, temporary = folder.parent / "latest", folder.parent / f".latest.{os.getpid()}"
    if link.exists() and not link.is_symlink():
        return
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(folder.name)
    os.replace(temporary, link)


def _walk(composed: DictConfig, folder: Path, overrides: Sequence[str], point: str = "") -> None:
    """`point`: its number where lines of several points mix on the screen."""
    from compress.pipeline import run as run_pipeline

    config = to_config(composed)
    (folder / "config.yaml").write_text(to_yaml(config))
    command = shlex.join(["compress", "run", *overrides])
    report = run_pipeline(config, folder, new_road(point=point), command)
    assert report is not None  # only a dry run has none
    verdict = report.verdict
    word = "ships" if verdict.ships else "does not ship"
    if point:  # the sweep's table comes at its end
        line = f"[bold]#{point}[/] {verdict.best} {word}: {escape('; '.join(verdict.reasons))}"
        console.print(line, highlight=False, soft_wrap=True)
    else:
        show(report, folder)
    log.info("%s %s: %s", verdict.best, word, "; ".join(verdict.reasons))


def show(report: Report, folder: Path) -> None:
    """What a run prints at its end, and `compress report` again."""
    from compress.report.table import console_summary

    console.print(console_summary(report, console.width))
    for name, path in (("report:  ", folder / "report.html"), ("artifact:", folder / "artifact")):
        if path.exists():
            console.print(f"{name} {path}", soft_wrap=True)
