"""Whether our reading of a published model is that of the library which it was published for.

All other proof compares small models with our reading of the large one. So each task has a `stock.py`, which
imports nothing of ours and reads the published folder with stock libraries alone, in a fresh process:

    stock.py PUBLISHED PROBES.json OUT.npz

Probes go past every limit that the model's files name. What both sides make of them is compared part by part:
the name of each array is its part, a slash and the probe's name.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from compress.errors import GateError, ModelError
from compress.stages.result import gate, write_result

# Parts in the order of the reading: what comes first explains what differs behind it.
EXACT = ("classes", "tokens", "ends")
MAX_ABS_DIFF = {"pixels": 1e-5, "outputs": 1e-4}  # times the largest value, where that is above 1
Arrays = dict[str, np.ndarray]
_MISSING = re.compile(r"(?:ModuleNotFound|Import)Error: .*(?:module named|from) '([A-Za-z_]+)")
# What tokenizers are known to read differently.
TEXTS = {
    "a sentence": "A cat sits on the mat, and the dog barks.",
    "capitals and accents": "ÜBER die Straße: l'été, İstanbul, naïve café.",
    "spaces": "  two  spaces\tand a tab \n\n and lines ",
    "other scripts": "日本語の文章です。 Привет, мир! नमस्ते 👩‍👩‍👧 ﬁ ①",
    "numbers and code": "x = 3.14159 * 1_000_000; print(f'{x:,}') # 2026-11-27",
    "marks of models": "[CLS] [SEP] [MASK] <s> </s> <pad> <|endoftext|> <|im_start|>",
    "control characters": "a\u200bb\u00a0c\ufeffd\u0301",
}


class Reading(Protocol):
    """A model as we read it, beside its folder."""

    def probes(self) -> dict[str, Any]:
        """Inputs for both sides, as plain JSON."""

    def answers(self, probes: Mapping[str, Any]) -> Arrays:
        """What we make of them; names as those of the task's `stock.py`."""


def check_reading(reading: Reading, stock: ModuleType, published: Path, out: Path) -> None:
    """Hold what we read in `published` against the stock library, and note the gate in `out/stage.json`.

    Raises GateError naming the first part that differs, ModelError where the stock library does not open the
    folder.
    """
    probes = reading.probes()
    told = stock_answers(stock, published, probes)
    compared = compare(reading.answers(probes), told)
    library = str(told["library"])
    write_result(out, gates=[gate(f"read as {library} reads it", **compared)])


def stock_answers(stock: ModuleType, published: Path, probes: Mapping[str, Any]) -> Arrays:
    """What the task's stock library makes of `probes`, computed in a fresh process."""
    with tempfile.TemporaryDirectory() as scratch:
        asked, told = Path(scratch) / "probes.json", Path(scratch) / "answers.npz"
        asked.write_text(json.dumps(probes))
        done = subprocess.run(
            [sys.executable, "-P", str(stock.__file__), str(published), str(asked), str(told)],
            capture_output=True,
            text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
        if done.returncode:
            said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:300]
            if missing := _MISSING.match(said):
                package = missing[1].replace("_", "-")
                raise ModelError(
                    f"{package} cannot be imported, by which {published.name} is read to compare",
                    found=said,
                    next=f"pip install --force-reinstall {package}",
                )
            raise ModelError(
                f"the library that {published.name} is published for does not open it",
                found=said,
                allowed="a folder that stock libraries read",
                next="fetch the model again, all files of one revision",
            )
        with np.load(told) as stored:
            return {name: stored[name] for name in stored.files}


def compare(ours: Arrays, stock: Arrays) -> dict[str, float]:
    """Counts of what is equal and the largest differences of the rest, by part.

    Raises GateError for the first part that differs, with the probe and both values.
    """
    numbers: dict[str, float] = {}
    for part in (*EXACT, *MAX_ABS_DIFF):
        names = sorted(name for name in {*ours, *stock} if name.startswith(f"{part}/"))
        for name in names:
            _check(part, name, ours.get(name), stock.get(name))
        if not names:
            continue
        if part in EXACT:
            numbers[f"equal_{part}"] = len(names)
        else:
            numbers[f"max_abs_diff_of_{part}"] = max(_difference(ours[name], stock[name]) for name in names)
    return numbers


def _difference(ours: np.ndarray, stock: np.ndarray) -> float:
    return float(np.abs(ours - stock).max(initial=0))


def _check(part: str, name: str, ours: np.ndarray | None, stock: np.ndarray | None) -> None:
    found = None
    if ours is None or stock is None or ours.shape != stock.shape:
        found = f"{_short(ours)} here, {_short(stock)} there"
    elif part in EXACT:
        if not np.array_equal(ours, stock):
            found = f"{_short(ours)} here, {_short(stock)} there"
    else:
        allowed = MAX_ABS_DIFF[part] * max(1.0, float(np.abs(stock).max(initial=0)))
        if not _difference(ours, stock) <= allowed:  # NaN is not
            found = f"max abs difference {_difference(ours, stock):.3g}, where {allowed:.1g} is rounding"
    if found is not None:
        raise GateError(
            f"we read the {part} of this model otherwise than the library that it was published for",
            found=f"{name.partition('/')[2]}: {found}",
            next="report this model: its numbers would not be those of the model",
        )


def _short(values: np.ndarray | None) -> str:
    if values is None:
        return "nothing"
    listed = values.ravel().tolist()
    return f"{len(listed)} values {listed[:12]}{' ...' if len(listed) > 12 else ''}"
