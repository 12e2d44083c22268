"""Files by their content, and a disk that is full or may not be written."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from compress.errors import StoreError

_DENIED = (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST)


def link_or_copy(source: Path, target: Path) -> None:
    """Give the content of a file a second name, which takes no space, where it lies on the same disk and may
    be written to; else copy it."""
    source = source.resolve()
    if os.access(source, os.W_OK):  # the store syncs what it keeps, for which it is opened to be written
        with suppress(OSError):
            target.hardlink_to(source)
            return
    shutil.copyfile(source, target)


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


@contextmanager
def disk_errors(folder: Path, what: str = "the cache") -> Iterator[None]:
    """Turn a full or read-only disk under `folder` into a StoreError; everything else passes."""
    setting = "set COMPRESS_CACHE to" if what == "the cache" else "work in"
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        # torch, safetensors, onnx and processes that we start tell of a full disk in words of their own.
        number = error.errno if isinstance(error, OSError) else None
        said = [line.strip() for line in str(error).splitlines() if "No space left on device" in line]
        if number in (errno.ENOSPC, errno.EDQUOT) or said:
            raise StoreError(
                "the disk is full",
                found=f"{_free_mb(folder)} MB free under {folder}; {said[0] if said else error}",
                next=f"free some space or {setting} a folder on another disk; "
                "finished stages are kept and the next run takes up after them",
            ) from error
        if isinstance(error, OSError) and number in _DENIED:
            raise StoreError(
                f"{what} cannot be written",
                found=f"{error.filename or folder}: {error.strerror}",
                next=f"{setting} a folder you may write to",
            ) from error
        raise


def _free_mb(folder: Path) -> str:
    try:
        return f"{shutil.disk_usage(folder).free / 1e6:.0f}"
    except OSError:
        return "no"
