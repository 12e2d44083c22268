"""One folder a point: what was asked, how it ended. Reports of a sweep are made from these files alone."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from compress.errors import CompressError
from compress.report.files import publish

_ALIVE = ".alive"  # locked as long as a process runs the point
_VANISHED = "its process vanished: killed, or out of memory; finished stages are kept"
_ABSENT = "it never began, or not in this folder, which workers on other machines need under the same path"


@contextmanager
def point(folder: Path, overrides: Sequence[str]) -> Iterator[None]:
    """Record the point in `folder/point.json`: running, then done or failed with its error.

    A failure of the user's kind is recorded and swallowed, so that the points after it still run. A point
    that is done and run again, since the sweep was started again, stays done until it ends another way:
    a kill meanwhile takes no finished point out of the report.
    """
    again = _read(folder) == {"overrides": list(overrides), "status": "done", "error": None}
    if not again:
        _write(folder, overrides, "running")
    try:
        yield
    except CompressError as error:
        _write(folder, overrides, "failed", str(error))
    except BaseException as error:  # a bug or Ctrl-C: recorded, and not ours to swallow
        if not (again and isinstance(error, KeyboardInterrupt)):
            _write(folder, overrides, "failed", f"{type(error).__name__}: {error}")
        raise
    else:
        _write(folder, overrides, "done")


@contextmanager
def alive(folder: Path) -> Iterator[None]:
    """Hold the point's lock, which a killed process lets go of, wherever the sweep's launcher ran it."""
    with FileLock(folder / _ALIVE):
        yield


def record_vanished(sweep: Path, jobs: Sequence[Sequence[str]] = ()) -> list[int]:
    """Record as failed the points whose process is gone and those of `jobs` that never began; their numbers.

    `jobs` holds the overrides of every point by number.
    """
    recorded = []
    for number, overrides in enumerate(jobs):
        folder = sweep / str(number)
        if not (folder / "point.json").exists():
            folder.mkdir(exist_ok=True)
            _write(folder, [word for word in overrides if not word.startswith("hydra")], "failed", _ABSENT)
            recorded.append(number)
    for path in sweep.glob("[0-9]*/point.json"):
        with suppress(Timeout), FileLock(path.parent / _ALIVE, blocking=False):
            record = _read(path.parent)
            if record.get("status") == "running":
                _write(path.parent, record["overrides"], "failed", _VANISHED)
                recorded.append(int(path.parent.name))
    return sorted(recorded)


def failed(sweep: Path) -> list[str]:
    """Names of the points that did not finish; also of those that a kill left without a record."""
    points = [path for path in sweep.glob("[0-9]*") if path.is_dir() and path.name.isdecimal()]
    return sorted((path.name for path in points if _read(path).get("status") != "done"), key=int)


def _read(folder: Path) -> dict[str, Any]:
    """What is recorded; nothing where the record is missing or damaged."""
    try:
        record = json.loads((folder / "point.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _write(folder: Path, overrides: Sequence[str], status: str, error: str | None = None) -> None:
    content = {"overrides": list(overrides), "status": status, "error": error}
    publish(folder / "point.json", json.dumps(content, indent=2) + "\n")
