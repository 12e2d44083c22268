"""The study behind a search: optuna's storage, its trials as records, and what to try next."""

import hashlib
import itertools
import os
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import psutil
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState
from pydantic import TypeAdapter
from sqlalchemy.exc import SQLAlchemyError

from compress.config.run import RunConfig
from compress.config.search import SearchConfig
from compress.config.space import Choice, Range
from compress.errors import ConfigError, StoreError
from compress.search.space import Measured, collect, configure, settings_of, starts
from compress.system.disk import sha256_json

STORAGE_ERRORS = (StorageInternalError, SQLAlchemyError)
INTERRUPTED = "interrupted"  # the reason of a trial that is to be run again
STARTUP_TRIALS = 5  # random ones, before TPE has something to go by
POPULATION = 10  # of NSGA-II: its default of 50 is more than a search here runs
ASKS = 10  # until settings that were not tried yet are drawn without the sampler
VANISHED = timedelta(hours=6)  # a trial of another machine that runs for longer than this is dead
Canonical = Callable[[RunConfig], RunConfig]


@dataclass(frozen=True, kw_only=True)
class Record:
    """A trial as the study keeps it."""

    number: int
    settings: dict[str, Any] = field(default_factory=dict)
    state: str
    reason: str = ""
    glance: Measured | None = None
    measured: Measured | None = None
    seconds: float = 0.0
    key: str | None = None  # of its configuration
    params: dict[str, Any]  # as the sampler proposed them

    @property
    def counts(self) -> bool:
        """Neither a repetition nor cut short."""
        return (self.key is not None and self.state != "FAIL") or self.reason not in ("", INTERRUPTED)


_RECORD = TypeAdapter(Record)
_RECORDED = ("settings", "reason", "glance", "measured", "seconds", "key")  # in a trial's user attributes


def open_study(config: RunConfig, request: SearchConfig, folder: Path) -> optuna.Study:
    """The study of this name, new or resumed; what an earlier process left undone is queued again."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study(
            storage=_storage(request, folder),
            study_name=request.study,
            directions=["minimize"] * len(request.objectives),
            load_if_exists=True,
        )
    # no such kind of URL, no driver, no journal
    except (ValueError, ImportError, IsADirectoryError) as error:
        raise _storage_error(request, error) from None
    _claim(study, "objectives", list(request.objectives), ", ".join(request.objectives))
    _claim(study, "experiment", sha256_json([repr(config), repr(collect(config))]), "this experiment")
    trials = study.get_trials(deepcopy=False)
    seed = (request.seed + 7919 * len(trials)) % 2**32  # a resumed sampler must not repeat itself
    if request.sampler == "nsga2":
        study.sampler = optuna.samplers.NSGAIISampler(seed=seed, population_size=POPULATION)
    else:
        study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS)
    for params in starts(config, collect(config)):
        study.enqueue_trial(params, skip_if_exists=True)
    _take_up(study)
    return study


def _storage(request: SearchConfig, folder: Path) -> BaseStorage:
    if request.storage is not None and "://" in request.storage:
        return RDBStorage(request.storage)
    path = Path(request.storage) if request.storage else folder / "journal.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        _cut_torn_line(path)
    return JournalStorage(JournalFileBackend(str(path)))


def _cut_torn_line(path: Path) -> None:
    """A full disk or a kill may leave half a line; optuna would append to it and never read on from there."""
    lock = JournalFileSymlinkLock(str(path))
    lock.acquire()
    try:
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if content.startswith(b'{"op_code":') and whole < len(content):  # else no journal: not ours to change
            os.truncate(path, whole)
    finally:
        lock.release()


def _claim(study: optuna.Study, name: str, value: Any, shown: str) -> None:
    known = study.user_attrs.get(name)
    if known is None and not study.get_trials(deepcopy=False):
        study.set_user_attr(name, value)
    elif known != value:
        listed = ", ".join(known) if isinstance(known, list) else "another one"
        raise ConfigError(
            f"study {study.study_name!r} exists with other settings: {name}",
            found=shown,
            allowed=listed,
            next="give this search a name of its own: --study NAME",
        )


def _take_up(study: optuna.Study) -> None:
    """Trials of dead processes end here; they and the interrupted ones are queued again."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if not _alive(trial):
            study.tell(trial.number, state=TrialState.FAIL)
    records = read_records(study)
    done = {record.key for record in records if record.counts}
    for record in records:
        if record.state == "FAIL" and not record.counts and record.key and record.key not in done:
            study.enqueue_trial(record.params, skip_if_exists=False)
            done.add(record.key)


def still_running(study: optuna.Study) -> bool:
    return any(map(_alive, study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))))


def _alive(trial: FrozenTrial) -> bool:
    host, _, pid = trial.user_attrs.get("process", ":").rpartition(":")
    if host == socket.gethostname():
        return psutil.pid_exists(int(pid))
    return trial.datetime_start is not None and datetime.now() - trial.datetime_start < VANISHED


@contextmanager
def storage_errors(request: SearchConfig) -> Iterator[None]:
    """Turn what a database says into a StoreError."""
    try:
        yield
    except STORAGE_ERRORS as error:
        raise _storage_error(request, error) from error


def _storage_error(request: SearchConfig, error: Exception) -> StoreError:
    cause = getattr(error, "orig", None) or error.__cause__ or error
    return StoreError(
        "the study's storage refuses",
        found=f"{request.storage or 'journal.log'}: {str(cause).splitlines()[0]}",
        allowed="a journal file, or a database URL such as sqlite:///study.db",
        next="finished trials are kept there; start the same command again once it answers",
    )


def read_records(study: optuna.Study) -> list[Record]:
    """All trials but the queued ones and repetitions."""
    trials = study.get_trials(deepcopy=False)
    return [_record(t) for t in trials if t.state is not TrialState.WAITING and "repeats" not in t.user_attrs]


def _record(trial: FrozenTrial) -> Record:
    attrs = {name: trial.user_attrs[name] for name in _RECORDED if name in trial.user_attrs}
    facts = {"number": trial.number, "state": trial.state.name, "params": trial.params}
    return _RECORD.validate_python({**facts, **attrs})


def next_trial(
    study: optuna.Study, config: RunConfig, canonical: Canonical, seed: int
) -> tuple[optuna.Trial, RunConfig] | None:
    """A trial whose configuration nobody tried yet; None when there is none left."""
    space = collect(config)
    if not space:
        raise ConfigError(
            "the experiment has nothing to search", next="prune=transformer or quantize=int8_dynamic"
        )
    records = read_records(study)
    tried = {r.key: r.number for r in records if r.key and (r.counts or r.state == "RUNNING")}
    distributions = {name: _distribution(values) for name, values in space.items()}

    def propose() -> tuple[optuna.Trial, RunConfig] | None:
        trial = study.ask(distributions)
        trial.set_user_attr("process", f"{socket.gethostname()}:{os.getpid()}")
        candidate = canonical(configure(config, trial.params))
        if (key := config_key(candidate)) in tried:
            trial.set_user_attr("repeats", tried[key])
            study.tell(trial, state=TrialState.FAIL)
            return None
        trial.set_user_attr("key", key)
        trial.set_user_attr("settings", settings_of(candidate, space))
        return trial, candidate

    for _ in range(ASKS):
        if proposal := propose():
            return proposal
    grid = list(itertools.product(*[_points(values) for values in space.values()]))
    random.Random(seed).shuffle(grid)
    for point in grid:
        params = dict(zip(space, point, strict=True))
        if config_key(canonical(configure(config, params))) not in tried:
            study.enqueue_trial(params)
            return propose()
    return None


def _distribution(values: Range) -> BaseDistribution:
    if isinstance(values, Choice):
        return CategoricalDistribution(values.names)
    return FloatDistribution(values.low, values.high, step=values.step)


def _points(values: Range) -> list[Any]:
    if isinstance(values, Choice):
        return list(values.names)
    count = round((values.high - values.low) / values.step)
    return [values.low + i * values.step for i in range(count + 1)]


def config_key(config: RunConfig) -> str:
    return hashlib.sha256(repr(config).encode()).hexdigest()[:16]
