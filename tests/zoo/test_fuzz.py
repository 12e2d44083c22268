"""One value of a published model is changed: what we read then is what stock libraries read, or refused."""

import collections
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from compress.errors import CompressError
from tests.zoo import fuzz
from tests.zoo.both_readings import Ours, difference, stock

Draw = Callable[[str, Path, random.Random], fuzz.Change]
FAILURES = ("SILENT", "TRACEBACK")


@dataclass(frozen=True)
class Outcome:
    kind: str
    change: fuzz.Change
    told: str = ""


def outcome(change: fuzz.Change, original: Path, unchanged: Any, folder: Path) -> Outcome:
    task = fuzz.SUBJECTS[change.subject].task
    published = fuzz.changed(change, original, folder / "published")
    failure = ""
    try:
        theirs = stock(task, published)
    except BaseException as error:  # a panic of tokenizers is no Exception
        failure = f"{type(error).__name__}: {error}"
    ours, found = Ours(task, published, folder / "out"), None
    try:
        read = ours.read()
    except CompressError as error:
        who = "both refuse" if failure else "we refuse"
        return Outcome(f"{who}, weights {'seen' if ours.fetched else 'unseen'}", change, str(error))
    except BaseException as error:
        if ours.gate is None:
            return Outcome("TRACEBACK", change, f"{type(error).__name__}: {error}")
        found = f"ours fails: {type(error).__name__}: {error}; stock: {failure or 'reads'}"
    found = found or (f"stock refuses: {failure}" if failure else difference(read, theirs))
    if found is None:
        return Outcome("equal, changed" if difference(theirs, unchanged) else "equal, unchanged", change)
    try:
        passes = ours.gate is None or ours.passes_gate()
    except BaseException as error:
        return Outcome("TRACEBACK", change, f"in the gate: {type(error).__name__}: {error}; {found}")
    return Outcome("SILENT" if passes else "gate alone", change, found)


def tried(
    seed: int,
    count: int,
    folder: Path,
    subjects: Sequence[str] = tuple(fuzz.SUBJECTS),
    draw: Draw = fuzz.of_config,
) -> list[Outcome]:
    """Outcomes of `count` changes, of all subjects in turn."""
    originals, found = {}, []
    for number in range(count):
        subject = subjects[number % len(subjects)]
        if subject not in originals:
            original = folder / subject
            original.mkdir()
            fuzz.SUBJECTS[subject].make(original)
            originals[subject] = original, stock(fuzz.SUBJECTS[subject].task, original)
        rng = random.Random(f"{seed} {number}")
        change = draw(subject, originals[subject][0], rng)
        scratch = folder / "scratch"
        scratch.mkdir()
        found.append(outcome(change, *originals[subject], scratch))
        shutil.rmtree(scratch)
    return found


def check(found: list[Outcome]) -> None:
    print(dict(collections.Counter(each.kind for each in found)))
    assert not [f"{each.kind}: {each.change}: {each.told}" for each in found if each.kind in FAILURES]


@pytest.mark.parametrize(("draw", "count"), [(fuzz.of_config, 16), (fuzz.of_files, 10)])
def test_a_changed_value_is_read_as_stock_libraries_read_it(draw, count, tmp_path):
    check(tried(0, count, tmp_path, tuple(fuzz.SUBJECTS)[::6], draw))


@pytest.mark.slow
@pytest.mark.parametrize(("draw", "count"), [(fuzz.of_config, 500), (fuzz.of_files, 200)])
def test_hundreds_of_changed_values(draw, count, tmp_path):
    check(tried(1, count, tmp_path, draw=draw))


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("draw", [fuzz.of_config, fuzz.of_files])
@pytest.mark.parametrize("seed", range(2, 6))
def test_thousands_of_changed_values(seed, draw, tmp_path):
    check(tried(seed, 1000, tmp_path, draw=draw))
