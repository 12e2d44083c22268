"""How often the test sets were used on this machine: a line in the cache for every evaluation.

Whoever picks the best of many models by their test numbers reports chance as quality; the count tells a
reader how much of that there may be. Evaluations of the dense model do not count, it is nobody's choice.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock

from compress.schema.report import UseCount
from compress.system.disk import disk_errors

NAME = "test_use.jsonl"


def note(cache: Path, *, experiment: str, model: str, command: str, sets: Mapping[str, str]) -> None:
    """Append a line to `cache/test_use.jsonl`.

    `model` is the sha256 of the ONNX file that was evaluated, `sets` the fingerprint of each test set by
    name. Raises StoreError where the cache cannot be written.
    """
    line = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "experiment": experiment,
        "model": model,
        "command": command,
        "sets": dict(sets),
    }
    with (
        disk_errors(cache),
        FileLock(cache / f"{NAME}.lock"),
        (cache / NAME).open("a", encoding="utf-8") as file,
    ):
        file.write(json.dumps(line) + "\n")


def count(cache: Path, fingerprint: str) -> UseCount:
    """Uses of the test set with this fingerprint; lines that a crash left unfinished do not count."""
    models = []
    for line in _lines(cache / NAME):
        try:
            use = json.loads(line)
            if fingerprint in use["sets"].values():
                models.append(str(use["model"]))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return UseCount(looks=len(models), models=len(set(models)))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", errors="replace").split("\n")
    except OSError:
        return []
