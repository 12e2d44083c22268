"""The search: what it tries, keeps, turns away and says, with candidates that cost nothing."""

import csv
import io
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import optuna
import pytest
from rich.console import Console

from compress import registry
from compress.config.benchmark import BenchmarkConfig
from compress.config.data import TextData, TextFile
from compress.config.evaluate import SentenceSimilarity
from compress.config.export import TorchExport
from compress.config.model import EncoderModel
from compress.config.prune import Keep, NoPrune, TransformerPrune
from compress.config.quantize import Int8Dynamic, NoQuantize
from compress.config.recover import Distill, NoRecover, NoTrain
from compress.config.run import RunConfig
from compress.config.search import SearchConfig
from compress.config.target import BudgetConfig, LocalTarget
from compress.errors import BudgetError, ConfigError, GateError, StoreError
from compress.schema.estimates import Estimate, Score
from compress.schema.report import Report, Variant, Verdict
from compress.search.search import search
from compress.search.space import Measured, canonical
from compress.search.study import config_key, open_study, read_records

ROOT = Path(__file__).resolve().parents[2]


def config(**changes):
    settings = {
        "name": "x",
        "model": EncoderModel(source="path:x"),
        "data": TextData(corpora={"c": TextFile(source="path:c")}, test_corpus="c"),
        "prune": TransformerPrune(keep=Keep(ffn=0.5)),
        "recover": Distill(),
        "export": TorchExport(),
        "quantize": Int8Dynamic(),
        "evaluate": SentenceSimilarity(primary="cosine"),
        "target": LocalTarget(),
        "benchmark": BenchmarkConfig(max_seconds=1.0),
        "train": NoTrain(),
        "budget": BudgetConfig(max_quality_drop=0.01),
    }
    return RunConfig(**{**settings, **changes})


def request(**changes):
    return SearchConfig(**{"objectives": ("latency",), "study": "s", "trials": 8, **changes})


@dataclass
class Fake:
    """Speed and quality by formula: what is pruned is faster and worse, recovery brings 60 % back."""

    glances: list = field(default_factory=list)
    measures: list = field(default_factory=list)
    confirmed: list = field(default_factory=list)
    fail: object = None  # called with a config before it is measured
    harm: float = 0.02  # of pruning all

    def canonical(self, config):
        return canonical(config, {"ffn": (1536,) * 6, "heads": (12,) * 6})

    def glance(self, config):
        self.glances.append(config)
        return self.look(replace(config, recover=NoRecover()))

    def measure(self, config):
        if self.fail:
            self.fail(config)
        self.measures.append(config)
        return self.look(config)

    def look(self, config):
        kept = 1.0
        if isinstance(config.prune, TransformerPrune):
            keep = config.prune.keep
            kept = keep.ffn * keep.heads * keep.layers
        bits = 32 if isinstance(config.quantize, NoQuantize) else 8
        drop = self.harm * (1 - kept) * (1.0 if isinstance(config.recover, NoRecover) else 0.4)
        speedup = (1.0 if bits == 32 else 2.5) / (0.2 + 0.8 * kept)
        return Measured(
            metric="cosine",
            drop=Estimate(value=drop, ci95=(drop - 0.001, drop + 0.001)),
            speedup=Estimate(value=speedup, ci95=(speedup * 0.98, speedup * 1.02)),
            slowest=speedup * 0.97,
            size_mb=kept * bits,
            memory_mb=100 * kept,
        )

    def confirm(self, config, folder, command):
        self.confirmed.append(config)
        seen = self.look(config)
        worse = Estimate(value=seen.drop.value + 0.003, ci95=(seen.drop.value, seen.drop.value + 0.006))
        common = {"stage": "x", "path": "x", "sha256": "", "parameters": 1, "macs": 1}
        score = Score(value=1.0, ci95=(1.0, 1.0), n=9, higher_is_better=True)
        variants = (
            Variant(name="dense", size_bytes=32_000_000, fidelity={"cosine": score}, **common),
            Variant(
                name="int8",
                size_bytes=round(seen.size_mb * 1e6),
                drop_from_dense={"cosine": worse},
                speedup={"1x8": seen.speedup},
                **common,
            ),
        )
        return Report(
            experiment="x",
            config={},
            environment={},
            splits={},
            primary_metric="cosine",
            variants=variants,
            verdict=Verdict(ships=True, best="int8", reasons=()),
            stages=(),
        )


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(fake, of=None, **changes):
    """What was printed."""
    console = Console(file=io.StringIO(), width=200)
    search(of or config(), request(**changes), fake, console, "compress search")
    return console.file.getvalue()


def records(of=None, **changes):
    folder = Path("outputs/x/search-s")
    return read_records(open_study(of or config(), request(**changes), folder))


# --- exploring


def test_it_finds_and_confirms_the_best_within_the_budget():
    fake = Fake()
    said = run(fake)
    tried = [fake.look(each) for each in fake.measures]
    feasible = [each for each in tried if each.drop.ci95[1] <= 0.01]
    assert feasible
    [confirmed] = fake.confirmed
    assert fake.look(confirmed).speedup.value == max(each.speedup.value for each in feasible)
    on_select = fake.look(confirmed).drop.value
    line = next(line for line in said.splitlines() if "quality drop " in line)
    _, _, select, test, _ = line.split("│")
    assert select.split()[0] == f"{on_select:+.1%}"
    assert test.split()[0] == f"{on_select + 0.003:+.1%}"
    assert "test was used 1 time(s)" in said


def test_the_first_trials_are_mild_own_and_aggressive():
    fake = Fake()
    run(fake, trials=3)
    mild, own, far = [record.settings for record in records()]
    assert "prune.keep.ffn" not in mild
    assert (own["prune.keep.ffn"], own["prune.keep.heads"], own["prune.keep.layers"]) == (0.5, 1.0, 1.0)
    assert (far["prune.keep.ffn"], far["prune.keep.heads"], far["prune.keep.layers"]) == (0.25, 0.5, 0.5)
    assert fake.measures[0].prune == NoPrune()
    assert len(fake.glances) == 2  # where nothing is recovered, the glance would cost what it saves


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_the_same_settings_are_never_run_twice(sampler):
    fake = Fake()
    run(fake, sampler=sampler, trials=12)
    keys = [config_key(each) for each in fake.measures]
    assert len(set(keys)) == len(keys)
    looked = [config_key(each) for each in fake.glances]
    assert len(set(looked)) == len(looked)
    assert len(records()) == 12


def test_a_space_that_is_used_up_ends_the_search():
    fake = Fake()
    said = run(fake, config(prune=NoPrune(), recover=NoRecover()), trials=50)
    assert "every candidate of the search space was tried" in said
    assert len(fake.measures) == 6  # none, int8_dynamic, and int8_static with four calibrators


def test_nothing_to_search_is_said(monkeypatch):
    class Own(Int8Dynamic):
        pass

    monkeypatch.setitem(registry._declared, Own, registry.declared(Int8Dynamic))

    with pytest.raises(ConfigError, match="nothing to search"):
        run(Fake(), config(prune=NoPrune(), recover=NoRecover(), quantize=Own()))


def test_trials_are_those_of_the_study_and_it_resumes():
    run(Fake(), trials=4)
    before = records()
    again = Fake()
    run(again, trials=4)
    assert not again.measures
    assert len(again.confirmed) == 1
    run(again, trials=6)
    after = records()
    assert [record.key for record in after[:4]] == [record.key for record in before]
    assert len(after) == 6
    assert len({record.key for record in after}) == 6


def test_looks_at_test_are_counted_by_winner():
    assert "1 time(s)" in run(Fake(), trials=2)
    assert "1 time(s)" in run(Fake(), trials=2)
    worse = Fake(harm=0.0)  # now pruning costs nothing, so a faster one wins
    assert "2 time(s)" in run(worse, trials=6)


def test_no_trial_is_started_that_does_not_fit(monkeypatch):
    clock = iter(range(0, 100_000, 30))  # every look at the clock takes half a minute
    monkeypatch.setattr("compress.search.search.time.monotonic", lambda: float(next(clock)))
    fake = Fake()
    said = run(fake, trials=None, minutes=6)
    assert "no time for another trial" in said
    assert 1 <= len(fake.measures) < 6
    assert len(fake.confirmed) == 1


# --- the glance


def test_what_cannot_beat_the_best_is_pruned_with_its_reason():
    fake = Fake(harm=0.0)
    run(fake, trials=14)
    pruned = [record for record in records() if record.state == "PRUNED"]
    assert pruned
    assert all(re.match(r"too slow: at most .*x, the best has at least", record.reason) for record in pruned)
    assert all(record.glance and not record.measured for record in pruned)
    assert not {record.key for record in pruned} & {config_key(each) for each in fake.measures}


def test_the_hopeless_are_pruned_with_their_reason():
    fake = Fake(harm=0.2)
    run(fake, trials=20)
    reasons = [record.reason for record in records() if record.state == "PRUNED"]
    hopeless = [reason for reason in reasons if reason.startswith("hopeless")]
    assert hopeless
    assert "after the largest gain so far (budget 1.0%)" in hopeless[0]


def test_the_limits_of_the_budget_prune():
    budget = BudgetConfig(min_speedup=3.0, max_size_mb=6.0)
    run(Fake(), config(budget=budget), trials=10)
    reasons = {record.reason.split(" (")[-1] for record in records(config(budget=budget)) if record.glance}
    assert reasons & {"budget 6 MB)", "budget 3x)"}
    study = open_study(config(budget=budget), request(), Path("outputs/x/search-s"))
    missed = [
        t for t in study.trials if "(budget" in t.user_attrs.get("reason", "") and t.state.name == "PRUNED"
    ]
    assert missed
    assert all(max(trial.constraints.values()) > 0 for trial in missed)  # which the sampler learns from


def test_infeasible_only_names_the_least_infeasible():
    tight = config(budget=BudgetConfig(max_quality_drop=0.0))
    fake = Fake(harm=1.0)
    said = run(fake, tight, trials=6)
    assert "no candidate meets the budget; the one that misses it least:" in said
    assert fake.look(fake.confirmed[0]).drop.value == min(
        fake.look(each).drop.value for each in fake.measures
    )
    assert "not met" in said
    assert all(record.reason for record in records(tight))


# --- several objectives


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_several_objectives_end_in_a_point_of_the_front(sampler):
    fake = Fake()
    run(fake, objectives=("quality_drop", "latency", "size", "memory"), sampler=sampler, trials=15)
    feasible = [s for each in fake.measures if (s := fake.look(each)).drop.ci95[1] <= 0.01]
    best = fake.look(fake.confirmed[0])
    assert not any(
        s.drop.value < best.drop.value and s.speedup.value > best.speedup.value and s.size_mb < best.size_mb
        for s in feasible
    )


# --- what goes wrong


def test_a_failed_trial_is_recorded_and_the_rest_go_on():
    def fail(config):
        if isinstance(config.prune, NoPrune):
            raise GateError("coverage is too low", found=0.1)

    fake = Fake(fail=fail)
    said = run(fake, trials=5)
    first = records()[0]
    assert (first.state, first.reason) == ("FAIL", "coverage is too low")
    assert "fail: coverage is too low" in said
    assert len(records()) == 5
    assert fake.confirmed


def test_when_all_fail_the_experiment_is_at_fault():
    def fail(config):
        raise GateError("broken")

    with pytest.raises(BudgetError, match="the first 3 trials failed"):
        run(Fake(fail=fail))


def test_ctrl_c_keeps_the_study_and_the_trial_is_run_again():
    def fail(config):
        if isinstance(config.prune, TransformerPrune):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Fake(fail=fail), trials=4)
    first, cut = records()
    assert first.state == "COMPLETE"
    assert (cut.state, cut.reason, cut.counts) == ("FAIL", "interrupted", False)
    assert json.loads(Path("outputs/x/search-s/trials.json").read_text())[1]["reason"] == "interrupted"
    fake = Fake()
    run(fake, trials=4)
    assert cut.key in {config_key(each) for each in fake.glances}
    assert sum(record.counts for record in records()) == 4


def test_a_full_disk_ends_the_search_and_not_only_the_trial():
    def fail(config):
        raise StoreError("the disk is full")

    with pytest.raises(StoreError, match="the disk is full"):
        run(Fake(fail=fail), trials=4)
    assert [record.counts for record in records()] == [False]


def test_a_killed_process_leaves_nothing_running():
    folder = Path("outputs/x/search-s")
    folder.mkdir(parents=True)
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_search import Fake, config, request, run\n"
        "run(Fake(fail=lambda config: os.kill(os.getpid(), signal.SIGKILL)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    fake = Fake()
    run(fake, trials=3)
    states = [(record.state, record.counts) for record in records()]
    assert states == [("FAIL", False), *[("COMPLETE", True)] * 3]


@pytest.mark.parametrize(
    ("of", "changes", "match"),
    [
        (None, {"objectives": ("latency", "size")}, "other settings: objectives"),
        (None, {"objectives": ("size",)}, "other settings: objectives"),
        (config(budget=BudgetConfig(max_quality_drop=0.5)), {}, "other settings: experiment"),
        (config(recover=NoRecover()), {}, "other settings: experiment"),
    ],
)
def test_a_study_of_something_else_is_refused(of, changes, match):
    run(Fake(), trials=2)
    before = records()
    with pytest.raises(ConfigError, match=match) as caught:
        run(Fake(), of, **changes)
    assert "--study NAME" in str(caught.value)
    assert records() == before


def test_a_foreign_study_is_refused():
    optuna.create_study(study_name="s", storage="sqlite:///foreign.db").enqueue_trial({"x": 1})
    with pytest.raises(ConfigError, match="exists with other settings"):
        run(Fake(), storage="sqlite:///foreign.db")


# --- storage


def test_a_database_serves_as_well():
    fake = Fake()
    run(fake, storage="sqlite:///study.db", trials=4)
    again = Fake()
    run(again, storage="sqlite:///study.db", trials=5)
    assert len(again.measures) <= 1
    assert not Path("outputs/x/search-s/journal.log").exists()


def test_a_journal_may_lie_anywhere():
    run(Fake(), storage="shared/a.log", trials=2)
    assert Path("shared/a.log").is_file()
    assert len(records(storage="shared/a.log")) == 2


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////no/such/folder/a.db",
        "nothing://x",
        "mysql+nodriver://x/y",
        "postgresql://localhost:1/study",  # no driver, or nobody listens
        "://",
    ],
)
def test_a_database_that_refuses_is_said(url):
    with pytest.raises(StoreError, match="the study's storage refuses") as caught:
        run(Fake(), storage=url)
    assert url in str(caught.value)


@pytest.mark.parametrize("what", ["garbage", "a folder", "read-only"])
def test_a_database_file_that_cannot_serve_is_said_and_left_as_it_is(what):
    path, url = Path("study.db"), "sqlite:///study.db"
    if what == "a folder":
        path.mkdir()
    elif what == "garbage":
        path.write_bytes(b"what" * 5000)
    else:
        run(Fake(), storage=url, trials=1)
        url = "sqlite:///file:study.db?mode=ro&uri=true"
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(StoreError, match=r"the study's storage refuses\n  found:.*\n  allowed:.*\n  next:"):
        run(Fake(), storage=url, trials=2)
    assert (path.read_bytes() if path.is_file() else b"") == before


def test_a_journal_that_is_none_is_said():
    Path("a.log").write_text("what\n")
    with pytest.raises(StoreError, match="the study's storage refuses"):
        run(Fake(), storage="a.log")


@pytest.mark.parametrize("torn", [1, 30, "newline"])
def test_half_a_line_at_the_end_of_a_journal_costs_that_line_alone(torn):
    """As a full disk leaves it; what is appended after it must be read again."""
    run(Fake(), storage="a.log", trials=2)
    before = [record.number for record in records(storage="a.log")]
    line = Path("a.log").read_bytes().splitlines()[-1]
    with Path("a.log").open("ab") as file:
        file.write(line if torn == "newline" else line[:torn])
    run(Fake(), storage="a.log", trials=4)
    after = [record.number for record in records(storage="a.log") if record.counts]
    assert after[:2] == before
    assert len(after) == 4


def test_a_file_that_is_no_journal_is_left_as_it_is():
    Path("notes.txt").write_text("my notes\nwithout an end")
    with pytest.raises(StoreError, match="the study's storage refuses"):
        run(Fake(), storage="notes.txt")
    assert Path("notes.txt").read_text() == "my notes\nwithout an end"


def test_a_journal_where_a_folder_is_is_said():
    Path("a.log").mkdir()
    with pytest.raises(StoreError, match="the study's storage refuses"):
        run(Fake(), storage="a.log")


def test_a_database_that_goes_away_keeps_what_it_had():
    def fail(config):
        if isinstance(config.prune, TransformerPrune):
            with sqlite3.connect("study.db") as database:
                database.execute("ALTER TABLE trial_user_attributes RENAME TO gone")

    with pytest.raises(StoreError, match="finished trials are kept"):
        run(Fake(fail=fail), storage="sqlite:///study.db", trials=4)
    with sqlite3.connect("study.db") as database:
        database.execute("ALTER TABLE gone RENAME TO trial_user_attributes")
    assert records(storage="sqlite:///study.db")[0].state == "COMPLETE"


@pytest.mark.slow
def test_two_processes_share_a_study():
    script = (
        "import sys, time\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_search import Fake, run\n"
        "run(Fake(fail=lambda config: time.sleep(0.2)), trials=8)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    both = [subprocess.Popen([sys.executable, "-c", script], env=environment) for _ in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
    found = [record for record in records() if record.counts]
    assert 8 <= len(found) <= 9  # both may have begun the last one at once
    assert len({record.key for record in found}) >= 8
    assert len({trial.user_attrs.get("process") for trial in trials()} - {None}) == 2


def trials():
    return open_study(config(), request(), Path("outputs/x/search-s")).trials


# --- what it leaves


def test_the_trials_are_saved():
    run(Fake(), trials=6)
    folder = Path("outputs/x/search-s")
    saved = json.loads((folder / "trials.json").read_text())
    assert [each["number"] for each in saved] == [record.number for record in records()]
    with (folder / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    complete = next(i for i, each in enumerate(saved) if each["measured"])
    assert float(rows[complete]["measured_drop"]) == saved[complete]["measured"]["drop"]["value"]
    assert (folder / "best" / "config.yaml").is_file()
    assert not [path for path in folder.iterdir() if path.name.startswith(".trials")]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"objectives": ("speed",)}, "unknown objective"),
        ({"objectives": ("size", "size")}, "different entries"),
        ({"objectives": ()}, "different entries"),
        ({"study": "../x"}, "no plain folder name"),
        ({"sampler": "cma"}, "unknown sampler"),
        ({"trials": 0}, "out of range"),
        ({"minutes": 0.0}, "out of range"),
        ({"seed": -1}, "out of range"),
    ],
)
def test_bad_requests_are_refused(changes, match):
    with pytest.raises(ConfigError, match=match):
        request(**changes)


# --- the command line


def test_an_unknown_objective_is_refused_in_seconds(compress, tiny):
    start = time.monotonic()
    done = compress("search", *tiny, "objective=latncy", "--trials", "2")
    assert done.returncode == 1
    assert "did you mean 'latency'?" in done.stderr
    assert "Traceback" not in done.stderr
    assert time.monotonic() - start < 20


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_search_of_a_tiny_model(compress, tiny, tmp_path):
    overrides = [*tiny, "prune=transformer", "prune.round_to=8", "prune.keep.ffn=0.5"]
    overrides += ["recover=distill", "recover.steps=4", "budget.max_quality_drop=0.5"]
    command = ["search", *overrides, "objective=latency,size", "--trials", "4", "--study", "t"]
    done = compress(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "winner: trial" in done.stdout
    folder = tmp_path / "outputs" / "tiny" / "search-t"
    report = Report.load(folder / "best" / "report.json")
    assert report.command.startswith("compress search")
    assert (folder / "best" / "artifact" / "model.onnx").is_file()
    saved = json.loads((folder / "trials.json").read_text())
    assert len(saved) == 4
    measured = [each["measured"] for each in saved if each["measured"]]
    assert {each["metric"] for each in measured} == {"select_spearman"}
    start = time.monotonic()
    again = compress(*command)
    assert again.returncode == 0, again.stdout + again.stderr
    assert time.monotonic() - start < 60
    assert "used 1 time(s)" in again.stdout
