"""`compress search`: the best candidate within a budget, chosen on select, confirmed once on test.

Optuna proposes, by ask and tell; every candidate passes through the stages of a run, so that candidates
share what they have in common. Before the expensive recovery a glance (no training, few samples, a short
timing) turns the hopeless ones away.
"""

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Protocol

import optuna
from optuna.trial import TrialState
from rich.console import Console

from compress.config.compose import to_yaml
from compress.config.recover import NoRecover
from compress.config.run import RunConfig
from compress.config.search import SearchConfig
from compress.config.target import BudgetConfig
from compress.errors import BudgetError, CompressError, StoreError
from compress.schema.report import Report
from compress.search.space import (
    Measured,
    cannot_win,
    configure,
    hopeless,
    objective_values,
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
from compress.search.tables import describe, promise_table, save, trials_table

FIRST_FAILURES = 3  # when that many first trials fail and none succeeds, the experiment itself is wrong


class Candidates(Protocol):
    """What the search asks about a configuration."""

    def canonical(self, config: RunConfig) -> RunConfig:
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
        session = Session(study, config, request, candidates, console)
        try:
            session.explore()
        finally:
            records = read_records(study)
            console.print(trials_table(records))
            save(records, folder)
        if still_running(study):
            console.print("another process still searches; the last one confirms the winner")
            return None
        return session.conclude(folder, command)


@dataclass(frozen=True)
class Session:
    """What one process does for a study."""

    study: optuna.Study
    config: RunConfig
    request: SearchConfig
    candidates: Candidates
    console: Console

    def explore(self) -> None:
        """Run trials until there are enough, the time is over or nothing new is left."""
        minutes, trials = self.request.minutes, self.request.trials
        end = math.inf if minutes is None else time.monotonic() + 60 * minutes
        while True:
            records = [record for record in read_records(self.study) if record.counts]
            if trials is not None and len(records) >= trials:
                return
            needed = expected_seconds(records) + self.config.benchmark.max_seconds
            if time.monotonic() + (needed if records else 0.0) > end:
                self.console.print(
                    f"no time for another trial, which takes about {needed:.0f} s with the last run"
                )
                return
            proposal = next_trial(self.study, self.config, self.candidates.canonical, self.request.seed)
            if proposal is None:
                self.console.print("every candidate of the search space was tried")
                return
            self.run_trial(*proposal)
            records = [record for record in read_records(self.study) if record.counts]
            if len(records) == FIRST_FAILURES and all(record.state == "FAIL" for record in records):
                raise BudgetError(
                    f"the first {FIRST_FAILURES} trials failed",
                    found=records[-1].reason,
                    next="try the experiment itself: compress run",
                )

    def run_trial(self, trial: optuna.Trial, config: RunConfig) -> None:
        """Measure a candidate and record the result; one that cannot be built is recorded as failed."""
        start = time.monotonic()
        settings = describe(trial.user_attrs["settings"])
        self.console.print(f"[bold]trial {trial.number}[/] {settings}", highlight=False)

        def record(state: TrialState, reason: str, values: Sequence[float] | None = None) -> None:
            trial.set_user_attr("reason", reason)
            trial.set_user_attr("seconds", time.monotonic() - start)
            self.study.tell(trial, values, state)
            self.console.print(f"  {state.name.lower()}{': ' if reason else ''}{reason}", highlight=False)

        try:
            if reason := self.reason_to_stop(trial, config):
                record(TrialState.PRUNED, reason)
                return
            measured = self.candidates.measure(config)
            trial.set_user_attr("measured", asdict(measured))
            for name, excess in violations(measured, config.budget).items():
                trial.set_constraint(name, excess)
            values = objective_values(measured, self.request.objectives)
            record(TrialState.COMPLETE, missed(measured, config.budget), values)
        except (StoreError, *STORAGE_ERRORS, KeyboardInterrupt):
            with suppress(*STORAGE_ERRORS):
                record(TrialState.FAIL, INTERRUPTED)
            raise
        except CompressError as error:
            record(TrialState.FAIL, str(error).splitlines()[0])

    def reason_to_stop(self, trial: optuna.Trial, config: RunConfig) -> str | None:
        """Why the trial is not worth its recovery; None when it is, or when there is none to save."""
        if isinstance(config.recover, NoRecover):
            return None
        budget, objectives = config.budget, self.request.objectives
        glance = self.candidates.glance(config)
        trial.set_user_attr("glance", asdict(glance))
        done = [r for r in read_records(self.study) if r.state == "COMPLETE" and r.measured]
        feasible = [r.measured for r in done if r.measured and total_violation(r.measured, budget) == 0]
        index = winner(feasible, objectives, budget)
        best = None if index is None else feasible[index]
        excess = violations(glance, budget)
        reason = cannot_win(glance, best, objectives, budget)
        if reason:
            excess.pop("quality_drop", None)  # recovery might have mended that
        else:
            past = [(r.glance, r.measured) for r in done if r.glance and r.measured]
            reason = hopeless(glance, past, budget)
        for name, value in excess.items() if reason else ():
            trial.set_constraint(name, value)
        return reason

    def conclude(self, folder: Path, command: str) -> Report:
        """Run the winner in full, on test, and print what it promised beside what it holds."""
        budget, say = self.config.budget, self.console.print
        done = [(r, r.measured) for r in read_records(self.study) if r.state == "COMPLETE" and r.measured]
        index = winner([measured for _, measured in done], self.request.objectives, budget)
        if index is None:
            raise BudgetError(
                "no trial finished, so that there is no candidate",
                next="give it more --minutes or --trials; compress run says what one run takes",
            )
        best, measured = done[index]
        if total_violation(measured, budget) > 0:
            say("[yellow]no candidate meets the budget; the one that misses it least:[/]")
        say(f"[bold]winner: trial {best.number}[/] {describe(best.settings)}", highlight=False)
        candidate = self.candidates.canonical(configure(self.config, best.params))
        (folder / "best").mkdir(exist_ok=True)
        (folder / "best" / "config.yaml").write_text(to_yaml(candidate))
        report = self.candidates.confirm(candidate, folder / "best", command)
        winners = self.study.user_attrs.get("test_looks", [])  # trials that test was used for
        if best.number not in winners:
            winners = [*winners, best.number]
            self.study.set_user_attr("test_looks", winners)
        say(promise_table(measured, report, budget))
        say(
            f"test was used {len(winners)} time(s) in this study, for trial "
            f"{', '.join(map(str, winners))}; every further use makes its number more optimistic",
            highlight=False,
        )
        say(f"report:   {folder / 'best' / 'report.html'}", soft_wrap=True)
        return report


def expected_seconds(records: Sequence[Record]) -> float:
    """Median of the trials that went all the way; 0 before there is one."""
    return median([r.seconds for r in records if r.state == "COMPLETE"] or [0.0])


def missed(measured: Measured, budget: BudgetConfig) -> str:
    names = [name for name, excess in violations(measured, budget).items() if excess > 0]
    return f"misses the budget: {', '.join(names)}" if names else ""
