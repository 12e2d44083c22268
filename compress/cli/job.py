"""One run, in the folder that Hydra made for it."""

import logging
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.markup import escape

from compress.cli.console import console, foreign
from compress.cli.points import alive, point
from compress.config.compose import to_config, to_yaml
from compress.config.run import RunConfig
from compress.schema.report import Report
from compress.sources import cache_dir
from compress.stages.runner import StageRunner
from compress.stages.store import Store
from compress.system.disk import disk_errors

log = logging.getLogger(__name__)


def job(composed: DictConfig) -> None:
    """What Hydra calls, for one run or for a point of a sweep."""
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
                _run(composed, folder, overrides, number)
            if (folder / "report.json").is_file():
                point_latest(folder.parent)
        else:
            try:
                _run(composed, folder, overrides)
            except BaseException as error:  # also Ctrl-C: whatever ended it, its log stays and is named
                log.info("stopped by %s: %s", type(error).__name__, error)
                console.print(foreign(f"log:      {folder / 'run.log'}"), soft_wrap=True)
                raise
            point_latest(folder)


def new_runner(config: RunConfig, dry_run: bool = False, point: str = "") -> StageRunner:
    return StageRunner(Store(cache_dir() / "store"), console, config.model.task, dry_run, point=point)


def point_latest(folder: Path) -> None:
    """outputs/<name>/latest -> this run, replaced in one step; what is no link of ours stays."""
    link, temporary = folder.parent / "latest", folder.parent / f".latest.{os.getpid()}"
    if link.exists() and not link.is_symlink():
        return
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(folder.name)
    os.replace(temporary, link)


def _run(composed: DictConfig, folder: Path, overrides: Sequence[str], point: str = "") -> None:
    """`point`: its number where lines of several points mix on the screen."""
    from compress.pipeline import run

    config = to_config(composed)
    (folder / "config.yaml").write_text(to_yaml(config))
    report = run(config, folder, new_runner(config, point=point), shlex.join(["compress", "run", *overrides]))
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
            console.print(foreign(f"{name} {path}"), soft_wrap=True)
