"""A tiny published model, a corpus and judged pairs, and the command line over them."""

import io
import json
import logging
import os
import random
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from compress.cli.main import main
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


def run_here(home: Path, cache: Path, *arguments: str, **extra: str) -> Done:
    """The command line in this process, as a shell in `home` starts it: exit code and what it printed."""
    out, err, handlers = io.StringIO(), io.StringIO(), list(logging.root.handlers)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(home)
        for name, value in environment(cache, **extra).items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", ["compress"])
        try:
            code = main(list(arguments))
        except SystemExit as stop:  # of argparse
            code = stop.code if isinstance(stop.code, int) else 1
        finally:
            GlobalHydra.instance().clear()
            for handler in set(logging.root.handlers) - set(handlers):  # of the run's log
                handler.close()
            logging.root.handlers[:] = handlers
    return Done(list(arguments), code, out.getvalue(), err.getvalue())


# The command line, whose tiny models are timed as shortly as those of tests in this process, and its garbage
# collected as shortly (conftest.py).
SHORTLY = """
import gc, sys
from compress.benchmark import limits, profile, timing
from compress.cli.main import main
timing.BLOCK_MS, timing.WARMUP_SECONDS = 5.0, 0.1
profile.SECONDS, profile.WARMUP_SECONDS = 0.03, 0.02
limits.CALLS, limits.WARMUP_SECONDS = 3, 0.05
gc.callbacks.append(lambda phase, found: gc.freeze() if (phase, found["generation"]) == ("stop", 2) else None)
sys.argv[0] = "compress"
sys.exit(main())
"""


def run_fresh(home: Path, cache: Path, *arguments: str, **extra: str) -> Done:
    """The command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", SHORTLY, *arguments],
        cwd=home,
        env=environment(cache, **extra),
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture
def compress(tmp_path: Path) -> Callable[..., Done]:
    """Run the command line in this process and in `tmp_path`, with a cache there."""
    return partial(run_here, tmp_path, tmp_path / "cache")


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
        "benchmark.workloads=[1x16,2x16]",
        "benchmark.max_seconds=1",
        "target.threads=1",
        "quantize.min_coverage=0.5",
    ]


SHRINK = [
    "prune=transformer",
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

    def run(self, *arguments: str, home: Path | None = None, **extra: str) -> Done:
        """The command line once more, beside it or in `home`, with its cache."""
        return run_here(home or self.home, self.cache, *arguments, **extra)


@pytest.fixture(scope="session")
def finished(once: Once, tiny: list[str]) -> Finished:
    """The tiny model pruned, distilled and quantized by the command line; not to be written to."""
    overrides = [*tiny, *SHRINK]

    def build(folder: Path) -> None:
        home = folder / "home"
        home.mkdir()
        done = run_fresh(home, folder / "cache", "run", *overrides)
        assert done.returncode == 0, done.stdout + done.stderr
        (folder / "printed.json").write_text(json.dumps([done.args, done.stdout, done.stderr]))

    folder = once("finished", build)
    arguments, stdout, stderr = json.loads((folder / "printed.json").read_text())
    home = folder / "home"
    latest = home / "outputs" / "tiny" / "latest"
    done = Done(arguments, 0, stdout, stderr)
    return Finished(home, folder / "cache", latest.resolve(), overrides, done)
