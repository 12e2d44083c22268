"""Which stages run, with what, and what their keys depend on."""

import io
import re
import time
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from rich.console import Console

from compress.cli.cache import held
from compress.config.prune import Keep, NoPrune, TransformerPrune
from compress.config.quantize import NoQuantize
from compress.config.recover import NoRecover
from compress.stages.runner import StageRunner
from compress.stages.store import Store


@dataclass(kw_only=True)
class Settings:
    value: int = 0


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cache")


def new_runner(store, dry_run=False):
    console = Console(file=io.StringIO(), width=100)
    return StageRunner(store, console, dry_run=dry_run)


def stage(calls, text="x"):
    def function(config, *, out, **inputs):
        calls.append((config, inputs))
        (out / "result").write_text(text)

    function.__module__ = "compress.prune.anything"
    return function


def test_a_stage_gets_its_config_its_inputs_and_its_output(store):
    calls, runner = [], new_runner(store)
    first = runner.stage("first", stage([]), Settings())
    runner.stage("second", stage(calls), Settings(value=2), checkpoint=first, many={"a": first}, name=3)
    assert calls == [(Settings(value=2), {"checkpoint": first.path, "many": {"a": first.path}, "name": 3})]
    assert [s.name for s in runner.stages] == ["first", "second"]
    assert not any(s.reused for s in runner.stages)


def test_a_stage_that_resumes_gets_a_folder_for_it(store):
    def function(config, out, scratch):
        assert out.name == "out"
        assert scratch.name == "scratch"

    function.__module__ = "compress.recover.anything"
    new_runner(store).stage("train", function, Settings(), scratch=True)


def test_the_same_stage_is_reused(store):
    calls = []
    made = new_runner(store).stage("s", stage(calls), Settings(), number=1, identity="i")
    runner = new_runner(store)
    again = runner.stage("s", stage(calls), Settings(), number=1, identity="i")
    assert len(calls) == 1
    assert again.reused
    assert again.path == made.path
    assert runner.stages[0].reused
    assert runner.stages[0].peak_memory_bytes == made.peak_memory_bytes
    assert "reused" in runner.console.file.getvalue()


def test_everything_a_stage_depends_on_is_in_its_key(store):
    runner = new_runner(store)
    first, other = (runner.stage("in", stage([]), Settings(value=v)) for v in (1, 2))
    exporting = stage([])
    exporting.__module__ = "compress.export.anything"
    digests = [
        runner.stage("s", stage([]), Settings(), graph=first).digest,
        runner.stage("t", stage([]), Settings(), graph=first).digest,
        runner.stage("s", stage([]), Settings(value=1), graph=first).digest,
        runner.stage("s", stage([]), Keep(), graph=first).digest,
        runner.stage("s", stage([]), Settings(), graph=other).digest,
        runner.stage("s", stage([]), Settings(), graph=first, checkpoint=other).digest,
        runner.stage("s", stage([]), Settings(), graph=other, checkpoint=first).digest,
        runner.stage("s", stage([]), Settings(), graph={"a": first}).digest,
        runner.stage("s", stage([]), Settings(), graph={"b": first}).digest,
        runner.stage("s", stage([]), Settings(), graph=first, number=1).digest,
        runner.stage("s", stage([]), Settings(), graph=first, settings=Settings()).digest,
        runner.stage("s", stage([]), Settings(), graph=first, settings=Settings(value=1)).digest,
        runner.stage("s", stage([]), Settings(), graph=first, identity="x").digest,
        runner.stage("s", exporting, Settings(), graph=first).digest,
    ]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("none", [NoPrune(), NoRecover(), NoQuantize()])
def test_an_option_that_skips_hands_on_its_first_input(store, none):
    calls, runner = [], new_runner(store)
    first = runner.stage("in", stage([]), Settings())
    assert runner.stage("skipped", stage(calls), none, checkpoint=first, splits=first) is first
    assert calls == []
    assert len(runner.stages) == 1


def test_waiting_for_the_machine_is_no_part_of_the_seconds(store, monkeypatch):
    @contextmanager
    def busy(alone):
        time.sleep(0.5)
        yield

    monkeypatch.setattr("compress.stages.runner.cores", busy)
    runner, start = new_runner(store), time.perf_counter()
    entry = runner.stage("s", stage([]), Settings())
    assert entry.seconds <= time.perf_counter() - start - 0.5
    assert runner.stages[0].seconds == entry.seconds
    assert store.find(entry.digest).seconds == entry.seconds


def test_a_label_is_shown_and_is_no_part_of_the_key(store):
    runner = new_runner(store)
    made = runner.stage("evaluate", stage([]), Settings(), label="evaluate int8")
    again = runner.stage("evaluate", stage([]), Settings(), label="evaluate dense")
    assert again.digest == made.digest
    assert [each.name for each in runner.stages] == ["evaluate int8", "evaluate dense"]
    assert re.match(r"evaluate int8 +\d.*\nevaluate dense +reused", runner.console.file.getvalue())
    assert [entry.stage for entry in held(store)] == ["evaluate int8"]
    assert store.typical_seconds("evaluate") is not None


def test_a_dry_run_builds_nothing_and_says_what_it_would_do(store):
    calls = []
    made = new_runner(store).stage("load", stage(calls), Settings())
    before = sorted(store.root.rglob("*"))
    runner = new_runner(store, dry_run=True)
    loaded = runner.stage("load", stage(calls), Settings())
    pruned = runner.stage("prune", stage(calls), TransformerPrune(), checkpoint=loaded)
    runner.stage("load", stage(calls), Settings(value=1), checkpoint=pruned)
    assert len(calls) == 1
    assert sorted(store.root.rglob("*")) == before
    lines = runner.console.file.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["load", "prune", "load"]
    assert "would be reused" in lines[0]
    assert "would run, no earlier run to estimate from" in lines[1]
    assert f"would run, about {made.seconds:.0f} s" in lines[2]


def test_a_dry_run_predicts_the_digests_of_the_run(store):
    def both(runner):
        first = runner.stage("load", stage([]), Settings())
        return [first.digest, runner.stage("prune", stage([]), TransformerPrune(), checkpoint=first).digest]

    assert both(new_runner(store, dry_run=True)) == both(new_runner(store))
