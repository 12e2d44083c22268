"""`compress search`: the best candidate within a budget, chosen on select, confirmed once on test.

Optuna proposes, by ask and tell; every candidate walks the stages of a run, so that candidates share what
they have in common. Before the expensive recovery a glance (no training, few samples, a short timing)
turns the hopeless ones away.
"""

import csv
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import optuna
from optuna.trial import TrialState
from rich.console import Console
from rich.table import Table

from compress.config.compose import to_yaml
from compress.config.recover import NoRecover
from compress.config.run import RunConfig
from compress.config.search import SearchConfig
from compress.config.target import BudgetConfig, LocalTarget
from compress.errors import BudgetError, CompressError, StoreError
from compress.judge.verdict import misses, score_of
from compress.schema.report import Estimate, Report
from compress.search.space import (
    Measured,
    cannot_win,
    configure,
    geometric_mean,
    hopeless,
    objective_values,
    relative,
    total_violation,
    violations,
    winner,
)
from compress.search.study import (
    INTERRUPTED,
    STORAGE_ERRORS,
    Record,
    next_trial,
    open_study,
    read_records,
    still_running,
    storage_errors,
)

FIRST_FAILURES = 3  # when that many first trials fail and none succeeds, the experiment itself is wrong


class Candidates(Protocol):
    """What the search asks about a configuration."""

    def settle(self, config: RunConfig) -> RunConfig:
        """The same config for all that lead to the same model."""

    def glance(self, config: RunConfig) -> Measured:
        """Without recovery, on few samples, timed briefly."""

    def measure(self, config: RunConfig) -> Measured: ...

    def confirm(self, config: RunConfig, folder: Path, command: str) -> Report:
        """A whole run, on test."""


def search(
    config: RunConfig, request: SearchConfig, candidates: Candidates, console: Console, command: str
) -> Report | None:
    """Explore, choose, confirm; files appear in outputs/<name>/search-<study>/.

    Returns the winner's report, None while another process still works on the study. Raises ConfigError
    for a study that was made for something else, StoreError for storage that fails, BudgetError when no
    trial finished.
    """
    folder = Path("outputs") / config.name / f"search-{request.study}"
    folder.mkdir(parents=True, exist_ok=True)
    with storage_errors(request):
        study = open_study(config, request, folder)
        try:
            explore(study, config, request, candidates, console)
        finally:
            records = read_records(study)
            console.print(trials_table(records))
            save(records, folder)
        if still_running(study):
            console.print("another process still searches; the last one confirms the winner")
            return None
        return conclude(study, config, request, candidates, console, command, folder)


# ---------------------------------------------------------------- trials


def explore(
    study: optuna.Study, config: RunConfig, request: SearchConfig, candidates: Candidates, console: Console
) -> None:
    """Run trials until there are enough, the time is over or nothing new is left."""
    end = math.inf if request.minutes is None else time.monotonic() + 60 * request.minutes
    while True:
        records = [record for record in read_records(study) if record.counts]
        if request.trials is not None and len(records) >= request.trials:
            return
        needed = expected_seconds(records) + _confirm_seconds(config)
        if time.monotonic() + (needed if records else 0.0) > end:
            console.print(f"no time for another trial, which takes about {needed:.0f} s with the last run")
            return
        asked = next_trial(study, config, candidates.settle, request.seed)
        if asked is None:
            console.print("every candidate of the search space was tried")
            return
        trial, candidate = asked
        run_trial(study, trial, candidate, request, candidates, console)
        records = [record for record in read_records(study) if record.counts]
        if len(records) == FIRST_FAILURES and all(record.state == "FAIL" for record in records):
            raise BudgetError(
                f"the first {FIRST_FAILURES} trials failed",
                found=records[-1].reason,
                next="try the experiment itself: compress run",
            )


def expected_seconds(records: Sequence[Record]) -> float:
    """Median of the trials that went all the way; 0 before there is one."""
    return median([r.seconds for r in records if r.state == "COMPLETE"] or [0.0])


def _confirm_seconds(config: RunConfig) -> float:
    return config.target.max_seconds if isinstance(config.target, LocalTarget) else 0.0


def run_trial(
    study: optuna.Study,
    trial: optuna.Trial,
    config: RunConfig,
    request: SearchConfig,
    candidates: Candidates,
    console: Console,
) -> None:
    """Look, decide, measure, tell. A candidate that cannot be made is told as failed, with the reason."""
    start = time.monotonic()
    console.print(f"[bold]trial {trial.number}[/] {describe(trial.user_attrs['settings'])}", highlight=False)

    def tell(state: TrialState, reason: str, values: Sequence[float] | None = None) -> None:
        trial.set_user_attr("reason", reason)
        trial.set_user_attr("seconds", time.monotonic() - start)
        study.tell(trial, values, state)
        console.print(f"  {state.name.lower()}{': ' if reason else ''}{reason}", highlight=False)

    try:
        if reason := _look(study, trial, config, request, candidates):
            tell(TrialState.PRUNED, reason)
            return
        measured = candidates.measure(config)
        trial.set_user_attr("measured", asdict(measured))
        for name, excess in violations(measured, config.budget).items():
            trial.set_constraint(name, excess)
        values = objective_values(measured, request.objectives)
        tell(TrialState.COMPLETE, missed(measured, config.budget), values)
    except (StoreError, *STORAGE_ERRORS, KeyboardInterrupt):
        with suppress(*STORAGE_ERRORS):
            tell(TrialState.FAIL, INTERRUPTED)
        raise
    except CompressError as error:
        tell(TrialState.FAIL, str(error).splitlines()[0])


def _look(
    study: optuna.Study,
    trial: optuna.Trial,
    config: RunConfig,
    request: SearchConfig,
    candidates: Candidates,
) -> str | None:
    """Why the trial is not worth its recovery; None when it is, or when there is none to save."""
    if isinstance(config.recover, NoRecover):
        return None
    glance = candidates.glance(config)
    trial.set_user_attr("glance", asdict(glance))
    done = [r for r in read_records(study) if r.state == "COMPLETE" and r.measured]
    feasible = [r.measured for r in done if r.measured and total_violation(r.measured, config.budget) == 0]
    index = winner(feasible, request.objectives, config.budget)
    best = None if index is None else feasible[index]
    excess = violations(glance, config.budget)
    reason = cannot_win(glance, best, request.objectives, config.budget)
    if reason:
        excess.pop("quality_drop", None)  # recovery might have mended that
    else:
        past = [(r.glance, r.measured) for r in done if r.glance and r.measured]
        reason = hopeless(glance, past, config.budget)
    for name, value in excess.items() if reason else ():
        trial.set_constraint(name, value)
    return reason


# ---------------------------------------------------------------- the end


def conclude(
    study: optuna.Study,
    config: RunConfig,
    request: SearchConfig,
    candidates: Candidates,
    console: Console,
    command: str,
    folder: Path,
) -> Report:
    """Run the winner in full, on test, and print what it promised beside what it holds."""
    done = [(r, r.measured) for r in read_records(study) if r.state == "COMPLETE" and r.measured]
    index = winner([measured for _, measured in done], request.objectives, config.budget)
    if index is None:
        raise BudgetError(
            "no trial finished, so that there is no candidate",
            next="give it more --minutes or --trials; compress run says what one run takes",
        )
    best, measured = done[index]
    if total_violation(measured, config.budget) > 0:
        console.print("[yellow]no candidate meets the budget; the one that misses it least:[/]")
    console.print(f"[bold]winner: trial {best.number}[/] {describe(best.settings)}", highlight=False)
    candidate = candidates.settle(configure(config, best.params))
    (folder / "best").mkdir(exist_ok=True)
    (folder / "best" / "config.yaml").write_text(to_yaml(candidate))
    report = candidates.confirm(candidate, folder / "best", command)
    looks = study.user_attrs.get("test_looks", [])
    if best.number not in looks:
        looks = [*looks, best.number]
        study.set_user_attr("test_looks", looks)
    console.print(promise_table(measured, report, config.budget))
    console.print(
        f"test was looked at {len(looks)} time(s) in this study, for trial "
        f"{', '.join(map(str, looks))}; every further look makes its number more optimistic",
        highlight=False,
    )
    console.print(f"report:   {folder / 'best' / 'report.html'}", soft_wrap=True)
    return report


def missed(measured: Measured, budget: BudgetConfig) -> str:
    names = [name for name, excess in violations(measured, budget).items() if excess > 0]
    return f"misses the budget: {', '.join(names)}" if names else ""


def describe(settings: Mapping[str, Any]) -> str:
    return " ".join(
        f"{name.rpartition('.')[2]}={f'{value:.3g}' if isinstance(value, float) else value}"
        for name, value in settings.items()
    )


def trials_table(records: Sequence[Record]) -> Table:
    table = Table("trial", "settings", "drop on select", "speed-up", "MB", "s", "state")
    for record in records:
        seen = record.measured or record.glance
        table.add_row(
            str(record.number),
            describe(record.settings),
            _percent(seen.drop) if seen else "",
            _times(seen.speedup) if seen else "",
            f"{seen.size_mb:.1f}" if seen else "",
            f"{record.seconds:.0f}",
            f"{record.state.lower()}{': ' if record.reason else ''}{record.reason}",
            style=None if record.measured else "dim",
        )
    table.caption = "dim: at a glance, before recovery"
    return table


def _percent(drop: Estimate) -> str:
    return f"{drop.value:+.1%} [{drop.ci95[0]:+.1%}, {drop.ci95[1]:+.1%}]"


def _times(speedup: Estimate) -> str:
    return f"{speedup.value:.2f}x [{speedup.ci95[0]:.2f}, {speedup.ci95[1]:.2f}]"


def promise_table(measured: Measured, report: Report, budget: BudgetConfig) -> Table:
    """Select, where it was chosen, beside test: the difference is the optimism of choosing."""
    dense, small, metric = report.variants[0], report.variants[-1], report.primary_metric
    drop = relative(small.drop_from_dense[metric], score_of(dense, metric))
    met = {True: "met", False: "not met"}
    table = Table("", f"select ({measured.metric})", f"test ({metric})")
    table.add_row("quality drop", _percent(measured.drop), _percent(drop))
    table.add_row("speed-up", _times(measured.speedup), _times(geometric_mean(small.speedup.values())))
    table.add_row("size", f"{measured.size_mb:.1f} MB", f"{small.size_bytes / 1e6:.1f} MB")
    table.add_row(
        "budget",
        met[total_violation(measured, budget) == 0],
        met[not misses(small, dense, metric, budget)],
    )
    return table


def save(records: Sequence[Record], folder: Path) -> None:
    """trials.json, with all there is, and trials.csv, a row a trial."""
    rows = [_row(record) for record in records]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    partial = folder / f".trials.{os.getpid()}"  # several processes may end at once
    partial.write_text(json.dumps([asdict(record) for record in records], indent=1) + "\n")
    os.replace(partial, folder / "trials.json")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    os.replace(partial, folder / "trials.csv")


def _row(record: Record) -> dict[str, Any]:
    row: dict[str, Any] = {"trial": record.number, "state": record.state, "reason": record.reason}
    row |= {"seconds": round(record.seconds, 1), **record.settings}
    for look in ("glance", "measured"):
        if (seen := getattr(record, look)) is not None:
            for name, value in asdict(seen).items():
                if isinstance(value, dict):
                    row[f"{look}_{name}"] = value["value"]
                    row[f"{look}_{name}_low"], row[f"{look}_{name}_high"] = value["ci95"]
                else:
                    row[f"{look}_{name}"] = value
    return row
