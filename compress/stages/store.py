"""Content-addressed results of stages: reuse, resume, atomic publish.

A result is a folder named by the digest of the stage's name, its config, the digests of its inputs
and the version of the code that makes it. It is written aside, checksummed, synced and renamed into
place, so that a killed run leaves either a whole result or none. Reading one checks its files; a
damaged result is rebuilt.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from compress.system.disk import disk_errors, sha256_file, sha256_json
from compress.system.memory import forget_peak, peak_memory

_SEAL = "entry.json"  # written last inside an entry: its key and the sha256 of every file


@dataclass(frozen=True)
class Entry:
    """A published result: `path` holds its files, `digest` names what it was made from."""

    path: Path
    digest: str
    reused: bool
    seconds: float  # it took to make, also when it was made by an earlier run
    peak_memory_bytes: int | None = None  # of the process that made it, meanwhile
    sums: Mapping[str, str] = field(default_factory=dict, compare=False)  # file -> sha256, as just checked


class Store:
    def __init__(self, root: Path) -> None:
        self.root = root
        with disk_errors(root):
            for name in ("entries", "partial"):
                (root / name).mkdir(parents=True, exist_ok=True)

    def find(self, digest: str) -> Entry | None:
        """The intact entry of this digest, or None."""
        path = self.root / "entries" / digest
        try:
            seal = json.loads((path / _SEAL).read_text())
            sums = seal["files"]
            intact = all(sha256_file(path / name) == expected for name, expected in sums.items())
            seconds, peak = float(seal["seconds"]), seal.get("peak_memory_bytes")
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # whatever damage leads to
            return None
        if not intact:
            return None
        with suppress(OSError):  # a cache that cannot be written still serves
            os.utime(path / _SEAL)  # `compress cache` removes what was unused for longest
        return Entry(path, digest, reused=True, seconds=seconds, peak_memory_bytes=peak, sums=sums)

    def make(
        self,
        stage: str,
        key: Any,
        build: Callable[[Path, Path], None],
        *,
        turn: Callable[[], AbstractContextManager[None]] = nullcontext,
        label: str = "",
    ) -> Entry:
        """The result of `build(out, scratch)`, made now or taken from an earlier run.

        `out` is empty at each start; `scratch` outlives a killed build, for stages that can resume.
        Two processes that want the same result share one build: the second waits for the first.
        `build` runs inside `turn()`; waiting for it is no part of the seconds. `label` tells entries of one
        stage apart for a reader and is no part of the key.
        """
        digest = entry_digest(stage, key)
        if entry := self.find(digest):  # without the lock: a cache that cannot be written still serves
            self._tidy(digest)
            return entry
        with disk_errors(self.root), FileLock(self.root / "partial" / f"{digest}.lock"):
            if entry := self.find(digest):
                return entry
            partial = self.root / "partial" / digest
            out, scratch = partial / "out", partial / "scratch"
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir(parents=True)
            scratch.mkdir(exist_ok=True)
            with turn():
                start = time.perf_counter()
                forget_peak()
                build(out, scratch)
                seconds, peak = time.perf_counter() - start, peak_memory()
            seal = {"stage": stage, "label": label or stage, "key": key, "seconds": seconds}
            seal |= {"torch_threads": _torch_threads(), "peak_memory_bytes": peak}
            sums = self._publish(out, digest, seal)
            shutil.rmtree(partial, ignore_errors=True)
        path = self.root / "entries" / digest
        return Entry(path, digest, reused=False, seconds=seconds, peak_memory_bytes=peak, sums=sums)

    def typical_seconds(self, stage: str) -> float | None:
        """Median time of earlier builds of this stage, for the estimate of a dry run."""
        times = sorted(float(seal["seconds"]) for _, seal in self.seals() if seal.get("stage") == stage)
        return times[len(times) // 2] if times else None

    def seals(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Folder and seal of every entry."""
        for path in (self.root / "entries").glob(f"*/{_SEAL}"):
            try:
                seal = json.loads(path.read_text())
            except (OSError, ValueError):
                continue
            if isinstance(seal, dict) and isinstance(seal.get("seconds"), int | float):
                yield path.parent, seal

    def _tidy(self, digest: str) -> None:
        """Remove what a kill between publishing and cleaning up left."""
        partial = self.root / "partial" / digest
        if partial.exists():
            # a lock that is taken: whoever published it still cleans up, or makes it again
            with suppress(OSError), FileLock(f"{partial}.lock", timeout=0):
                if (self.root / "entries" / digest / _SEAL).exists():
                    shutil.rmtree(partial)

    def _publish(self, out: Path, digest: str, seal: dict[str, Any]) -> dict[str, str]:
        files = sorted(path for path in out.rglob("*") if path.is_file())
        sums = seal["files"] = {str(path.relative_to(out)): sha256_file(path) for path in files}
        (out / _SEAL).write_text(json.dumps(seal, indent=1, sort_keys=True, default=str))
        for path in [*files, out / _SEAL]:
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        target = self.root / "entries" / digest
        if target.exists():  # damaged: `find` did not take it
            shutil.rmtree(target)
        os.replace(out, target)
        return sums


def _torch_threads() -> int | None:
    """How many threads torch splits its sums over, which decides their last bits; None where it slept."""
    torch = sys.modules.get("torch")
    return int(torch.get_num_threads()) if torch else None


def entry_digest(stage: str, key: Any) -> str:
    return sha256_json([stage, key])[:32]
