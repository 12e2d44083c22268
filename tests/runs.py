"""A tiny published model, a corpus and judged pairs, and `compress` in a process of its own."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.once import Once

ROOT = Path(__file__).resolve().parents[1]
Done = subprocess.CompletedProcess[str]
ADVERBS = ["slowly", "again", "today", "quietly", "early", "late", "seldom", "often"]
NOUNS = [
    "river",
    "mountain",
    "city",
    "train",
    "music",
    "bread",
    "stone",
    "window",
    "garden",
    "letter",
    "child",
    "market",
    "island",
]
VERBS = ["runs", "falls", "sings", "opens", "answers", "waits", "grows", "breaks"]


def sentence(rng: random.Random) -> str:
    words = [f"the {rng.choice(NOUNS)} {rng.choice(VERBS)} {rng.choice(ADVERBS)}" for _ in range(3)]
    return ", and ".join(words).capitalize() + "."


def environment(cache: Path, **extra: str) -> dict[str, str]:
    """As a user has it, with a cache of the test's own and without a network."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "COMPRESS_CACHE": str(cache),
        "HF_HUB_OFFLINE": "1",
        "PIP_NO_INDEX": "1",
        "OMP_NUM_THREADS": "1",
        **extra,
    }


@pytest.fixture
def compress(tmp_path: Path) -> Callable[..., Done]:
    """Run the command line in `tmp_path`, with a cache there."""

    def run(*arguments: str, **extra: str) -> Done:
        return subprocess.run(
            [sys.executable, "-m", "compress", *arguments],
            cwd=tmp_path,
            env=environment(tmp_path / "cache", **extra),
            capture_output=True,
            text=True,
            timeout=600,
        )

    return run


@pytest.fixture(scope="session")
def corpus(once: Once) -> Path:
    """A folder with text.txt, a document a line, and the judged pairs test.tsv and select.tsv."""

    def build(folder: Path) -> None:
        rng = random.Random(0)
        documents = [" ".join(sentence(rng) for _ in range(5)) for _ in range(150)]
        (folder / "text.txt").write_text("\n".join(documents) + "\n")
        for name in ("test", "select"):
            lines = [f"{sentence(rng)}\t{sentence(rng)}\t{rng.random() * 5:.2f}" for _ in range(30)]
            (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")

    return once("corpus", build)


@pytest.fixture(scope="session")
def tiny(published: dict[str, Path], corpus: Path) -> list[str]:
    """Overrides of a run on the tiny model that takes seconds."""
    pairs = ", ".join(
        f'{name}: {{source: "path:{corpus}/{name}.tsv", split: {name}, format: tsv}}'
        for name in ("test", "select")
    )
    return [
        "name=tiny",
        f"model.source=path:{published['bert']}",
        "data=text",
        "data.test_corpus=made",
        f'+data.corpora={{made: {{source: "path:{corpus}/text.txt"}}}}',
        f"+data.pairs={{{pairs}}}",
        "data.calibration=40",
        "data.select=40",
        "data.test=40",
        "evaluate.primary=test_spearman",
        "evaluate.resamples=200",
        "target.workloads=[1x16,2x16]",
        "target.max_seconds=1",
        "target.threads=1",
        "quantize.min_coverage=0.5",
    ]


SHRINK = [
    "prune=structured",
    "prune.keep.ffn=0.5",
    "prune.round_to=8",
    "recover=distill",
    "recover.steps=4",
    "recover.learning_rate=3e-5",  # at the usual one the untrained student stays the best
    "quantize=int8_dynamic",
]


@dataclass(frozen=True)
class Finished:
    """A finished run: `home` is where it was started, `folder` where its results are."""

    home: Path
    cache: Path
    folder: Path
    overrides: list[str]
    done: Done

    def run(self, *arguments: str, **options: Any) -> Done:
        """The command line once more, beside it and with its cache."""
        return subprocess.run(
            [sys.executable, "-m", "compress", *arguments],
            **{"cwd": self.home, "env": environment(self.cache), **options},
            capture_output=True,
            text=True,
            timeout=600,
        )


@pytest.fixture(scope="session")
def finished(once: Once, tiny: list[str]) -> Finished:
    """The tiny model pruned, distilled and quantized by the command line; not to be written to."""
    overrides = [*tiny, *SHRINK]

    def at(folder: Path, done: Done) -> Finished:
        home = folder / "home"
        latest = home / "outputs" / "tiny" / "latest"
        return Finished(home, folder / "cache", latest.resolve(), overrides, done)

    def build(folder: Path) -> None:
        (folder / "home").mkdir()
        done = at(folder, Done([], 0)).run("run", *overrides)
        assert done.returncode == 0, done.stdout + done.stderr
        (folder / "printed.json").write_text(json.dumps([done.args, done.stdout, done.stderr]))

    folder = once("finished", build)
    arguments, stdout, stderr = json.loads((folder / "printed.json").read_text())
    return at(folder, Done(arguments, 0, stdout, stderr))
