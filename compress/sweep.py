"""One folder a point: what was asked, how it ended. Reports of a sweep are made from these files alone."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from compress.errors import CompressError


@contextmanager
def point(folder: Path, overrides: Sequence[str]) -> Iterator[None]:
    """Record the point in `folder/point.json`: running, then done or failed with its error.

    A failure of the user's kind is recorded and swallowed, so that the points after it still run.
    """
    _write(folder, overrides, "running")
    try:
        yield
    except CompressError as error:
        _write(folder, overrides, "failed", str(error))
    except BaseException as error:  # a bug or Ctrl-C: recorded, and not ours to swallow
        _write(folder, overrides, "failed", f"{type(error).__name__}: {error}")
        raise
    else:
        _write(folder, overrides, "done")


def failed(sweep: Path) -> list[str]:
    """Names of the points that did not finish."""
    states = {path.parent.name: json.loads(path.read_text())["status"] for path in sweep.glob("*/point.json")}
    return sorted((name for name, status in states.items() if status != "done"), key=int)


def _write(folder: Path, overrides: Sequence[str], status: str, error: str | None = None) -> None:
    partial = folder / ".point.json"
    content = {"overrides": list(overrides), "status": status, "error": error}
    partial.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(partial, folder / "point.json")
