"""Does a sweep survive `kill -9`? Killed and restarted at random until it ends, beside one left alone.

python experiments/sweep_crash/run.py --kills 50 --out DIR
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from compress.runner.machine import machine_facts
from compress.runner.with_onnxruntime import runtime_facts

ROOT = Path(__file__).resolve().parents[2]
NOUNS = ["river", "mountain", "city", "train", "music", "bread", "stone", "window", "garden", "letter"]
VERBS = ["runs", "falls", "sings", "opens", "answers", "waits", "grows", "breaks"]
ADVERBS = ["slowly", "again", "today", "quietly", "early", "late", "seldom", "often"]
SPECIAL = {"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "<unk>"}
# Six points: all share loading, pruning, recovery and export.
GRID = ("quantize=int8_dynamic,int8_static", "quantize.exclude=[],[attention/output],[intermediate]")
TIMED = (
    *(
        "latency_ms",
        "speedup",
        "card_speed",
        "load_ms",
        "peak_memory_bytes",
        "comparable_ms",
        "latency_range_ms",
    ),
    *("profile", "floor", "limits", "not_faster"),
    "looks",  # at test so far: a kill between an evaluation and its note leaves one out
)


# ---------------------------------------------------------------- a tiny model and its texts


def sentence(rng: random.Random) -> str:
    words = [f"the {rng.choice(NOUNS)} {rng.choice(VERBS)} {rng.choice(ADVERBS)}" for _ in range(3)]
    return ", and ".join(words).capitalize() + "."


def write_inputs(folder: Path) -> list[str]:
    """A random two-layer encoder, a corpus and judged pairs; returns the overrides of a sweep on them."""
    rng = random.Random(0)
    names = [*SPECIAL.values(), "the", "The", "and", ".", ",", *NOUNS, *VERBS, *ADVERBS]
    words = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, model_max_length=64, **SPECIAL
    ).save_pretrained(folder / "model")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = transformers.BertConfig(
        vocab_size=len(names), max_position_embeddings=66, pad_token_id=1, initializer_range=0.25, **sizes
    )
    transformers.BertModel(config).save_pretrained(folder / "model")
    documents = [" ".join(sentence(rng) for _ in range(5)) for _ in range(150)]
    (folder / "text.txt").write_text("\n".join(documents) + "\n")
    for name in ("test", "select"):
        lines = [f"{sentence(rng)}\t{sentence(rng)}\t{rng.random() * 5:.2f}" for _ in range(30)]
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    pairs = ", ".join(
        f'{name}: {{source: "path:{folder}/{name}.tsv", split: {name}, format: tsv}}'
        for name in ("test", "select")
    )
    return [
        "name=crash",
        f"model.source=path:{folder}/model",
        "data=text",
        "data.test_corpus=made",
        f'+data.corpora={{made: {{source: "path:{folder}/text.txt"}}}}',
        f"+data.pairs={{{pairs}}}",
        *("data.calibration=40", "data.select=40", "data.test=40"),
        *("prune=transformer", "prune.keep.ffn=0.5", "prune.round_to=8"),
        # many looks: after each the training can be taken up
        *("recover=distill", "recover.steps=120", "recover.evaluate_every=5", "recover.patience=1000"),
        "quantize.min_coverage=0",
        *("evaluate.primary=test_spearman", "evaluate.resamples=200"),
        *("benchmark.workloads=[1x16]", "benchmark.max_seconds=1", "target.threads=1"),
        *GRID,
    ]


# ---------------------------------------------------------------- a sweep that can be killed


@dataclass
class Sweep:
    """A sweep in `home`: its cache, its folder `sweep` and the temporary files of its processes."""

    home: Path
    overrides: list[str]
    published: dict[str, tuple[tuple[str, int, int], ...]] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    redone: set[str] = field(default_factory=set)

    @property
    def folder(self) -> Path:
        return self.home / "sweep"

    @property
    def store(self) -> Path:
        return self.home / "cache" / "store"

    def start(self) -> subprocess.Popen[bytes]:
        """The same command every time, in a process group of its own."""
        (self.home / "tmp").mkdir(parents=True, exist_ok=True)
        own = {"COMPRESS_CACHE": str(self.home / "cache"), "TMPDIR": str(self.home / "tmp")}
        fixed = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "PIP_NO_INDEX": "1", "OMP_NUM_THREADS": "1"}
        with (self.home / "log").open("ab") as log:
            return subprocess.Popen(
                [
                    *(sys.executable, "-m", "compress", "run", "-m"),
                    *(*self.overrides, f"hydra.sweep.dir={self.folder}"),
                ],
                cwd=self.home,
                env={**os.environ, **fixed, **own},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def look(self) -> None:
        """Check every published entry: whole, and the very files it was published with."""
        if not (self.store / "entries").is_dir():
            return
        found = {path.name: path for path in (self.store / "entries").iterdir()}
        for digest, path in found.items():
            if not verifies(path):
                self.damaged.add(digest)
        now = {digest: identity(path) for digest, path in found.items()}
        self.redone |= {digest for digest, was in self.published.items() if now.get(digest) != was}
        self.published |= now

    def making(self, since: float, stages: dict[str, str]) -> str:
        """The stage in work: the one whose folder was begun after `since` and is not published."""
        for out in self.store.glob("partial/*/out"):
            digest = out.parent.name
            if out.stat().st_ctime >= since and not (self.store / "entries" / digest).exists():
                return stages.get(digest, "?")
        return "no stage: start-up, reuse, reports, artifact"

    def states(self) -> dict[str, str]:
        return {
            path.parent.name: json.loads(path.read_text())["status"]
            for path in self.folder.glob("*/point.json")
        }

    def left_over(self) -> dict[str, int]:
        """What a kill may leave lying about, counted."""
        partial = self.store / "partial"
        half = [*self.folder.rglob("*.partial"), *self.folder.rglob("*.old")]
        return {
            "half_artifacts": len(half),
            "hidden_files": len([p for p in self.folder.rglob(".*") if p not in half and p.name != ".alive"]),
            "store_partial_folders": len([p for p in partial.iterdir() if p.is_dir()]),
            "store_partial_bytes": sum(p.stat().st_size for p in partial.rglob("*") if p.is_file()),
            "temporary_folders": len([p for p in (self.home / "tmp").iterdir() if p.name.startswith("tmp")]),
        }


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def verifies(entry: Path) -> bool:
    """Whether every file is the one that the entry's seal names: the store's promise, checked without it."""
    try:
        seal = json.loads((entry / "entry.json").read_text())
        return all(sha256(entry / name) == expected for name, expected in seal["files"].items())
    except (OSError, ValueError, KeyError):
        return False


def identity(entry: Path) -> tuple[tuple[str, int, int], ...]:
    """Files by name, inode and time of change; of a seal, which is touched when it is used, without time."""
    files = sorted(path for path in entry.rglob("*") if path.is_file())
    return tuple(
        (str(path.relative_to(entry)), stat.st_ino, 0 if path.name == "entry.json" else stat.st_mtime_ns)
        for path in files
        if (stat := path.stat())
    )


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """Of the process and all that it has started, also of those that have ended."""
    seconds = 0.0
    with suppress(psutil.NoSuchProcess):
        main = psutil.Process(process.pid)
        for each in [main, *main.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                seconds += sum(each.cpu_times()[:4])
    return seconds


def wait(process: subprocess.Popen[bytes], until: float = float("inf")) -> float:
    """Until it ends or has computed for `until` seconds; returns for how many it has.

    Not by the clock, so that what else the machine does moves no kill beyond the sweep's end.
    """
    seen = 0.0
    while process.poll() is None and seen < until:
        time.sleep(0.05)
        seen = max(seen, cpu_seconds(process))
    return seen


def kill(process: subprocess.Popen[bytes], with_children: bool) -> list[psutil.Process]:
    """SIGKILL; the children that are left alive where only the main process was killed."""
    try:
        children = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        children = []
    process.kill()
    if with_children:
        for child in children:
            if child.is_running():
                child.kill()
        psutil.wait_procs(children, timeout=10)
    process.wait()
    return [child for child in children if child.is_running()]


# ---------------------------------------------------------------- what has to be equal


def unmeasured(value: Any) -> Any:
    """A report without what is measured in seconds or bytes of memory, and without what is said of it."""
    if isinstance(value, list):
        return [unmeasured(each) for each in value if not (isinstance(each, str) and "faster at" in each)]
    if not isinstance(value, dict):
        return value
    kept = {key: unmeasured(each) for key, each in value.items() if key not in TIMED}
    kept.pop("seconds", None)
    kept.pop("reused", None)
    kept.pop("noise", None)
    if "reasons" in kept:  # the verdict's: `slower at 1x16: 0.90x [0.88, 0.92]`
        kept["reasons"] = [each for each in kept["reasons"] if "slower at" not in each]
    if "fronts" in kept:  # sweep.json: the fronts over latency and memory follow from what was measured
        kept["fronts"] = [front for front in kept["fronts"] if front["kind"] == "size"]
        kept["ships"] = sorted(kept["ships"])  # fastest first
        del kept["not_told_apart"]
    return kept


def outcome(sweep: Sweep) -> dict[str, Any]:
    """All there is to compare: the sweep's report, each point's, and what each ships."""
    found: dict[str, Any] = {"sweep.json": unmeasured(json.loads((sweep.folder / "sweep.json").read_text()))}
    for path in sorted(sweep.folder.glob("[0-9]*")):
        found[f"{path.name}/report.json"] = unmeasured(json.loads((path / "report.json").read_text()))
        found[f"{path.name}/model.onnx"] = sha256(path / "artifact" / "model.onnx")
    return found


def numbers(value: Any) -> int:
    if isinstance(value, dict):
        return sum(map(numbers, value.values()))
    if isinstance(value, list):
        return sum(map(numbers, value))
    return isinstance(value, int | float) and not isinstance(value, bool)


# ---------------------------------------------------------------- the study


def undisturbed(home: Path, overrides: list[str]) -> tuple[Sweep, float]:
    """A sweep left alone, and for how many seconds it computed."""
    sweep = Sweep(home, overrides)
    process = sweep.start()
    try:
        seconds = wait(process)
    finally:
        kill(process, with_children=True)
    if process.returncode != 0:
        raise SystemExit(f"the undisturbed sweep failed, see {home / 'log'}")
    sweep.look()
    return sweep, seconds


def one_killed_sweep(
    sweep: Sweep, seconds: float, most: int, rng: random.Random, stages: dict[str, str]
) -> list[dict[str, Any]]:
    """Start, kill, look, start again; the kills, at most `most`.

    The moment is drawn from the first half of `seconds`. A start goes on where the one before was stopped,
    so that kills come at all stages of a sweep's life.
    """
    kills: list[dict[str, Any]] = []
    orphans: list[psutil.Process] = []
    while True:
        began = time.time()
        process = sweep.start()
        with_children = rng.random() < 0.5
        making = ""
        try:
            computed = wait(process, rng.uniform(0, seconds / 2) if len(kills) < most else float("inf"))
            making = sweep.making(began, stages)
        finally:
            ended = process.poll()
            orphans += kill(process, with_children)
        sweep.look()
        if ended is not None:
            break
        kills.append(
            {
                "after_cpu_seconds": round(computed, 2),
                "killed": "process and children" if with_children else "process alone",
                "while": making,
                "published": len(sweep.published),
                "points": dict(Counter(sweep.states().values())),
            }
        )
        print(json.dumps(kills[-1]), flush=True)
    if ended != 0:
        raise SystemExit(f"the restarted sweep ended with {ended}, see {sweep.home / 'log'}")
    if psutil.wait_procs(orphans, timeout=60)[1]:
        raise SystemExit("children of a killed process live on a minute after the sweep's end")
    return kills


def study(kills: int, seed: int, folder: Path, out: Path) -> dict[str, Any]:
    """Kill sweeps until there were `kills` kills; what was found, which `out/results.json` holds as well."""
    rng = random.Random(seed)
    overrides = write_inputs(folder)
    alone, seconds = undisturbed(folder / "alone", overrides)
    expected = outcome(alone)
    stages = {
        seal.parent.name: json.loads(seal.read_text())["stage"]
        for seal in alone.store.glob("entries/*/entry.json")
    }
    found: dict[str, Any] = {
        "machine": {**machine_facts(runtime_facts()), "cpus_allowed": len(os.sched_getaffinity(0))},
        "undisturbed": {"cpu_seconds": round(seconds, 1), "entries": len(alone.published)},
        "compared_files": len(expected),
        "compared_numbers": numbers(expected),
        "sweeps": [],
        "kills": [],
    }
    while len(found["kills"]) < kills:
        sweep = Sweep(folder / f"killed-{len(found['sweeps'])}", overrides)
        killed = one_killed_sweep(sweep, seconds, kills - len(found["kills"]), rng, stages)
        if killed:  # else the first draw was beyond its end
            found["kills"] += killed
            found["sweeps"].append({"kills": len(killed), **judged(sweep, expected)})
            print(json.dumps(found["sweeps"][-1]), flush=True)
            (out / "results.json").write_text(json.dumps(found, indent=1) + "\n")
        if not killed or sound(found["sweeps"][-1]):
            shutil.rmtree(sweep.home)
    return found


def judged(sweep: Sweep, expected: dict[str, Any]) -> dict[str, Any]:
    ended = outcome(sweep)
    return {
        "unequal": sorted(k for k in expected.keys() | ended.keys() if expected.get(k) != ended.get(k)),
        "damaged_entries": len(sweep.damaged),
        "redone_entries": len(sweep.redone),
        "entries": len(sweep.published),
        "left_over": sweep.left_over(),
    }


def sound(sweep: dict[str, Any]) -> bool:
    return not (sweep["unequal"] or sweep["damaged_entries"] or sweep["redone_entries"])


def summary(found: dict[str, Any]) -> str:
    """The tables of README.md."""
    sweeps, kills = found["sweeps"], found["kills"]
    left: Counter[str] = Counter()
    for sweep in sweeps:
        left.update(sweep["left_over"])
    rows = [
        ("kills", len(kills)),
        ("... of the process alone, its children left", sum(k["killed"] == "process alone" for k in kills)),
        ("sweeps they are spread over, all finished", len(sweeps)),
        ("sweeps that differ from the undisturbed one", sum(bool(s["unequal"]) for s in sweeps)),
        ("published entries that did not verify", sum(s["damaged_entries"] for s in sweeps)),
        ("published entries made a second time", sum(s["redone_entries"] for s in sweeps)),
        *((f"left over at the end: {name.replace('_', ' ')}", count) for name, count in left.items()),
    ]
    table = ["| what | found |", "|---|---|", *(f"| {what} | {count} |" for what, count in rows)]
    hit = Counter(kill["while"] for kill in kills)
    table += ["", "| killed while | kills |", "|---|---|"]
    return "\n".join([*table, *(f"| {stage} | {count} |" for stage, count in hit.most_common())])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder for results.json and table.md")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="sweep_crash-"))
    found = study(args.kills, args.seed, folder, args.out)
    (args.out / "table.md").write_text(summary(found) + "\n")
    print(summary(found))
    if not all(map(sound, found["sweeps"])):
        sys.exit(f"not as it should be; the sweeps concerned are kept in {folder}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
