"""Files out of archives that a registry serves. In the cache:

sources/<sha256 of the archive>/<archive>
sources/<sha256 of the archive>/<key of the path inside>/content/...  and manifest.json
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar

from compress.sources.cache import cache_dir, expect, file_sha256, locked, scratch, writing

_log = logging.getLogger(__name__)


class Member(Protocol):
    """A file or folder inside an archive; as a string its URI."""

    @property
    def archive_name(self) -> str:
        """The archive's name in the cache: it tells the version."""

    @property
    def inside(self) -> str: ...


M = TypeVar("M", bound=Member)


def root() -> Path:
    return cache_dir() / "sources"


def fetch(
    member: M,
    sha256: str | None,
    download: Callable[[M, Path], Path],
    unpack: Callable[[M, Path, Path], None],
) -> Path:
    """What `member` names: as it was kept earlier, else unpacked from its archive.

    `download(member, folder)` puts the archive into `folder`; it is checked against `sha256` before anything
    opens it. `unpack(member, archive, folder)` puts what the member names into `folder`.
    """
    if sha256 is None:
        kept = sorted(root().glob(f"*/{member.archive_name}"))
        sha256 = kept[0].parent.name if kept else None
    name, key = PurePosixPath(member.inside).name, hashlib.sha256(str(member).encode()).hexdigest()[:16]
    if sha256 is not None and (content := find(root() / sha256 / key, name)):
        return content  # without a lock: a cache that cannot be written still serves
    with locked(root(), member.archive_name):
        archive = _archive(member, sha256, download)
        folder = archive.parent / key
        return find(folder, name) or keep(
            folder, str(member), name, lambda target: unpack(member, archive, target)
        )


def _archive(member: M, sha256: str | None, download: Callable[[M, Path], Path]) -> Path:
    if sha256 is not None:
        kept = root() / sha256 / member.archive_name
        if kept.is_file() and file_sha256(kept) == sha256:
            return kept
    with scratch(root()) as temporary:
        downloaded = download(member, temporary)
        found = file_sha256(downloaded)
        expect(str(member), sha256, found)
        kept = root() / found / member.archive_name
        with writing(root()):
            kept.parent.mkdir(exist_ok=True)
            os.replace(downloaded, kept)
    if sha256 is None:
        _log.warning("%s is not pinned; add sha256: %s", member, found)
    return kept


def stays_inside(name: str) -> bool:
    """Whether a path of an archive is relative and plain."""
    path = PurePosixPath(name)
    plain = not path.is_absolute() and "\\" not in name and ":" not in name and "\0" not in name
    return plain and bool(path.parts) and ".." not in path.parts


def find(folder: Path, name: str) -> Path | None:
    """`content/name` as it was kept earlier, or None where there is none or it is not as it was written."""
    content = folder / "content"
    try:
        expected = json.loads((folder / "manifest.json").read_text("utf-8"))["files"]
        found = {file.relative_to(content).as_posix(): file for file in content.rglob("*") if file.is_file()}
        whole = found.keys() == expected.keys() and all(
            _as_written(file, **expected[name]) for name, file in found.items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return content / name if whole else None


def _as_written(file: Path, size: int, sha256: str, mtime_ns: int) -> bool:
    """Whether a file is untouched by its size and time; its bytes are only read where the time is another."""
    state = file.stat()
    return state.st_size == size and (state.st_mtime_ns == mtime_ns or file_sha256(file) == sha256)


def keep(folder: Path, source: str, name: str, unpack: Callable[[Path], None]) -> Path:
    """Have `unpack` fill a folder with `name` in it, and put that into the place of `folder` as a whole."""
    with scratch(root()) as temporary:
        content = temporary / "content"
        unpack(content)
        with writing(root()):
            files = {
                file.relative_to(content).as_posix(): {
                    "size": file.stat().st_size,
                    "sha256": file_sha256(file),
                    "mtime_ns": file.stat().st_mtime_ns,
                }
                for file in sorted(content.rglob("*"))
                if file.is_file()
            }
            manifest = {"source": source, "files": files}
            (temporary / "manifest.json").write_text(json.dumps(manifest, indent=1), "utf-8")
            if folder.exists():  # damaged, or it would have been used
                shutil.rmtree(folder)
            os.replace(temporary, folder)
    return folder / "content" / name
