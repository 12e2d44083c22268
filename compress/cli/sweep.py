"""A sweep: a folder for each point, which Hydra's launcher runs, and one report over all of them.

Points may run in other processes (hydra/launcher=joblib, ray, submitit_slurm), so that what they measured is
read from their folders and never from memory.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig
from rich.markup import escape

from compress.cli.console import console, foreign
from compress.cli.job import job
from compress.cli.points import failed, record_vanished
from compress.config.compose import expand
from compress.errors import CompressError, ConfigError
from compress.graph import graph_path
from compress.graph.files import sha256_model
from compress.sources import cache_dir

IN_GRAPH = ("quantize", "target.rewrites")  # of what target.tune chooses
Entry = Callable[[Callable[[DictConfig], None], Sequence[str]], Callable[[], None]]


def run_sweep(overrides: Sequence[str], experiment: str, entry: Entry, targets: str = "") -> int:
    """Run every point; a failed one is recorded in its folder and the others go on: the exit code is then 1.

    `entry(job, words)` is the job as Hydra starts it. `targets`, as `target=[a,b]`, are those on all of which
    is timed what the points ship.
    """
    words = list(overrides)
    folder = _sweep_folder(words, experiment)
    # A worker may have another working folder and another environment.
    shared = f"++hydra.job.env_set.COMPRESS_CACHE={_quoted(cache_dir())}"
    if "hydra/launcher=ray" in words:  # its plugin asks for 75 MB, which a running cluster refuses
        words = [*words, "++hydra.launcher.ray.init.object_store_memory=null"]
    start = entry(job, ["--multirun", shared, *words, f"hydra.sweep.dir={_quoted(folder.absolute())}"])
    points = expand(overrides, True)
    _refuse_another_sweep(folder, len(points))
    for number, point in enumerate(points):
        own = [word for word in point if any(word not in other for other in points)]
        console.print(f"[bold]#{number}[/] {escape(' '.join(own))}", highlight=False, soft_wrap=True)
    code = _run_points(start, folder, points)
    if targets:
        across(folder, [targets, *timing_words(points)])
    return code


def across(folder: Path, words: Sequence[str]) -> None:
    """Time every different artifact of the points on every target, into `folder/across`."""
    from compress.cli import bench

    shipped = sorted(folder.glob("[0-9]*/artifact"), key=lambda path: int(path.parent.name))
    different = {sha256_model(graph_path(path)): path for path in reversed(shipped)}
    if not different:
        return
    shutil.rmtree(folder / "across", ignore_errors=True)
    models = map(str, reversed(different.values()))
    bench.time_words([*models, *words], out=folder / "across")
    for line in unused(shipped):
        console.print(f"[yellow]{escape(line)}[/]", highlight=False, soft_wrap=True)


def timing_words(points: Sequence[Sequence[str]]) -> list[str]:
    """What all points say of how to time, but for tuning, which makes models."""
    shared = [word for word in points[0] if all(word in point for point in points)]
    words = [word for word in shared if word.startswith(("benchmark.", "target."))]
    return [word for word in words if not word.startswith("target.tune=")]


def unused(artifacts: Iterable[Path]) -> Iterator[str]:
    """A sentence for each that was tuned: its graph is timed on all targets, without the settings that were
    chosen for its own."""
    from compress.schema.report import Report

    for artifact in artifacts:
        tuning = Report.load(artifact.parent / "report.json").tuning
        chosen = tuning.chosen.items() if tuning else ()
        words = [f"{name}={value}".lower() for name, value in chosen if name not in IN_GRAPH]
        if words:
            yield (
                f"{artifact} was timed here without {' '.join(words)}, which target.tune chose on its own "
                "target: its report has the times with them"
            )


def _run_points(start: Callable[[], None], folder: Path, points: Sequence[Sequence[str]]) -> int:
    """Run a sweep; where its launcher breaks, report what had finished and name the rest."""
    try:
        start()
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
        vanished = record_vanished(folder, points)
        finish_sweep(folder)
        if not vanished:  # a bug in a point, recorded there
            raise
        console.print(f"[red]a worker vanished[/]: {escape(cause)}", highlight=False)
        again = foreign(f"hydra.sweep.dir={folder}")
        console.print(f"finished stages are kept: the same command with {again} takes up", soft_wrap=True)
        return 1
    record_vanished(folder, points)
    return finish_sweep(folder)


def finish_sweep(folder: Path) -> int:
    """Write the sweep's reports from its points' folders, print the table; 1 where a point failed."""
    from compress.judge.sweep import read_sweep
    from compress.report.sweep import write_sweep
    from compress.report.sweep_table import sweep_table

    sweep = read_sweep(folder)
    write_sweep(sweep, folder)
    console.print(sweep_table(sweep, console.width))
    console.print(foreign(f"report:   {folder / 'report.html'}"), soft_wrap=True)
    missing = failed(folder)
    if missing:
        named = foreign(", ".join(f"{folder}/{name}" for name in missing))
        console.print(f"[red]{len(missing)} failed[/]: {named}")
    return 1 if missing else 0


def _sweep_folder(words: Sequence[str], experiment: str) -> Path:
    """`hydra.sweep.dir`, else a new folder that the time names."""
    parsed = OverridesParser.create().parse_overrides(list(words))
    given = [override.value() for override in parsed if override.get_key_element() == "hydra.sweep.dir"]
    if given:
        return Path(str(given[-1]))
    return Path(f"outputs/{experiment}/sweep-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}")


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
