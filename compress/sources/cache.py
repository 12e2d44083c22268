"""The one folder that sources write to: where it is, how it is locked, written and checked."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_dir

from compress.errors import SourceError
from compress.system.disk import disk_errors, sha256_file


def cache_dir() -> Path:
    """`COMPRESS_CACHE`, else the user's cache folder of this operating system."""
    return Path(os.environ.get("COMPRESS_CACHE") or user_cache_dir("compress")).expanduser().absolute()


def digest(path: Path, patterns: Sequence[str] = ("*",)) -> str:
    """The sha256 of a file; of a folder, the sha256 of what `sha256sum` prints for its files, sorted by name.

    Hidden files and folders (.git, .cache) do not count, nor do files that match none of `patterns`.
    Raises SourceError when something cannot be read or a folder holds no file.
    """
    try:
        if path.is_file():
            return sha256_file(path)
        names = sorted(
            name
            for file in path.rglob("*")
            if file.is_file()
            and not (name := file.relative_to(path).as_posix()).startswith(".")
            and "/." not in name
            and any(fnmatch(name, pattern) for pattern in patterns)
        )
        sums = "".join(f"{sha256_file(path / name)}  {name}\n" for name in names)
    except OSError as error:
        raise SourceError(f"cannot read {path}", found=error.strerror, next="check its permissions") from None
    if not names:
        raise SourceError(f"the folder {path} holds no files", allowed=", ".join(patterns))
    return hashlib.sha256(sums.encode()).hexdigest()


def expect(uri: str, pinned: str | None, found: str, kind: str = "sha256") -> None:
    """Raise SourceError unless `found` is what was pinned, if anything was."""
    if pinned is not None and found != pinned:
        raise SourceError(
            f"{uri} is not what was pinned: another {kind}",
            found=found,
            allowed=pinned,
            next=f"do not use it, or, if you trust it, put the found {kind} into the config",
        )


@contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Hold the lock `name` in `folder`: of several processes that want the same thing one makes it."""
    with disk_errors(folder):
        (folder / "locks").mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "locks" / f"{name}.lock")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A new folder inside `folder`, on the same disk so that a rename publishes; gone after the block."""
    with disk_errors(folder):
        temporary = Path(tempfile.mkdtemp(prefix="partial-", dir=folder))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
