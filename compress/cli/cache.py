"""`compress cache`: what the store holds, and how it is made smaller."""

import argparse
import re
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from filelock import FileLock, Timeout
from rich.table import Table

from compress.cli.console import console
from compress.errors import ConfigError
from compress.sources import cache_dir
from compress.stages.store import Store

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SIZES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--older-than", metavar="7d", help="remove what was unused for that long")
    parser.add_argument("--max-size", metavar="5GB", help="remove the longest unused beyond that size")


def run(args: argparse.Namespace, rest: Sequence[str]) -> None:
    """List the store, or remove the old and the surplus."""
    store = Store(cache_dir() / "store")
    older_than = seconds(args.older_than) if args.older_than else None
    max_size = size(args.max_size) if args.max_size else None
    if older_than is None and max_size is None:
        table = Table("last used", "stage", "MB", "digest")
        entries = held(store)
        for entry in entries:
            when = f"{datetime.fromtimestamp(entry.used):%Y-%m-%d %H:%M}"
            table.add_row(when, entry.stage, f"{entry.size_bytes / 1e6:.1f}", entry.digest)
        console.print(table)
        console.print(f"{sum(entry.size_bytes for entry in entries) / 1e6:.1f} MB in {store.root}")
        return
    removed = prune(store, older_than, max_size)
    console.print(f"removed {len(removed)} entries, {sum(e.size_bytes for e in removed) / 1e6:.1f} MB")


@dataclass(frozen=True)
class Held:
    """One entry of the store."""

    digest: str
    stage: str  # and which of several, such as `evaluate int8`
    size_bytes: int
    used: float  # when it was last made or taken, seconds since the epoch


def held(store: Store) -> list[Held]:
    """All entries, the longest unused first."""
    entries = []
    for path, seal in store.seals():
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        stage = str(seal.get("label") or seal.get("stage"))
        entries.append(Held(path.name, stage, size, (path / "entry.json").stat().st_mtime))
    return sorted(entries, key=lambda entry: (entry.used, entry.digest))


def to_remove(
    entries: Sequence[Held], now: float, older_than: float | None, max_size: int | None
) -> list[Held]:
    """Entries unused for over `older_than` seconds, then the longest unused beyond `max_size` bytes."""
    removed = [entry for entry in entries if older_than is not None and now - entry.used > older_than]
    left = [entry for entry in sorted(entries, key=lambda e: e.used) if entry not in removed]
    while max_size is not None and sum(entry.size_bytes for entry in left) > max_size:
        removed.append(left.pop(0))
    return removed


def prune(store: Store, older_than: float | None, max_size: int | None) -> list[Held]:
    """Remove what `to_remove` names, except what a running process is making."""
    removed = []
    for entry in to_remove(held(store), time.time(), older_than, max_size):
        try:
            with FileLock(store.root / "partial" / f"{entry.digest}.lock", timeout=0):
                shutil.rmtree(store.root / "entries" / entry.digest)
        except Timeout:
            continue
        removed.append(entry)
    if older_than is not None:
        _drop_abandoned(store, time.time() - older_than)
    return removed


def _drop_abandoned(store: Store, before: float) -> None:
    """Remove what killed builds left and no run took up again, such as the progress of a training."""
    for partial in (store.root / "partial").glob("*/"):
        if max(path.stat().st_mtime for path in [partial, *partial.rglob("*")]) < before:
            with suppress(Timeout), FileLock(f"{partial}.lock", timeout=0):
                shutil.rmtree(partial)


def seconds(text: str) -> float:
    """`"7d"` -> seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text)
    if not match:
        raise ConfigError("not a duration", found=text, allowed="a number and one of s m h d w, such as 7d")
    return float(match[1]) * _UNITS[match[2]]


def size(text: str) -> int:
    """`"5GB"` -> bytes; 1 GB = 10^9 bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?B)", text.upper())
    if not match:
        raise ConfigError("not a size", found=text, allowed="a number and one of B KB MB GB TB, such as 5GB")
    return int(float(match[1]) * _SIZES[match[2]])
