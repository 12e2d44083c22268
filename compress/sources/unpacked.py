"""Files out of archives that a registry serves. In the cache:

sources/<sha256 of the archive>/<archive>
sources/<sha256 of the archive>/<key of the path inside>/content/...  and manifest.json
"""

import base64
import hashlib
import json
import logging
import os
import re
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, cast

from compress.errors import SourceError, did_you_mean
from compress.sources.cache import cache_dir, expect, locked, scratch
from compress.system.disk import disk_errors, sha256_file

_MAX_INFLATION = 200  # unpacked bytes per byte of archive: text reaches 20, a zip bomb 1000
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Member:
    """A file or folder `inside` the archive of `package` at `version`."""

    scheme: str
    package: str
    version: str
    inside: str
    archive_name: str  # of the archive in the cache: it tells the version
    before_version: str = "=="

    def __str__(self) -> str:
        return f"{self.scheme}:{self.package}{self.before_version}{self.version}/{self.inside}"


def split(
    scheme: str, name: str, package: str, version: str, word: str, before_version: str = "=="
) -> tuple[str, str, str]:
    """Package, version and path inside of `package==version/path/inside`, by patterns of the first two.

    `word` is what a message calls a package. Raises SourceError unless `name` has that form and the path
    stays inside.
    """
    match = re.fullmatch(rf"({package}){before_version}({version})/(.+)", name)
    inside = match[3].rstrip("/") if match else ""
    if match is None or not stays_inside(inside):
        raise SourceError(
            "not a file in a package",
            found=f"{scheme}:{name}",
            allowed=f"{scheme}:{word}{before_version}version/path/inside",
        )
    return match[1], match[2], inside


def root() -> Path:
    return cache_dir() / "sources"


def fetch(
    member: Member,
    sha256: str | None,
    download: Callable[[Member, Path], Path],
    unpack: Callable[[Member, Path, Path], None],
    integrity: str | None = None,
) -> Path:
    """What `member` names: as it was kept earlier, else unpacked from its archive.

    `download(member, folder)` puts the archive into `folder`; it is checked before anything opens it, against
    `sha256` or `integrity`, "sha512-" and its base64. `unpack(member, archive, folder)` puts what the member
    names into `folder`.
    """
    if sha256 is None:
        earlier = sorted(root().glob(f"*/{member.archive_name}"))
        earlier = [archive for archive in earlier if integrity in (None, sha512(archive))]
        sha256 = earlier[0].parent.name if earlier else None
    name, key = PurePosixPath(member.inside).name, hashlib.sha256(str(member).encode()).hexdigest()[:16]
    if sha256 is not None and (content := find(root() / sha256 / key, name)):
        return content  # without a lock: a cache that cannot be written still serves
    with locked(root(), member.archive_name):
        archive = _archive(member, sha256, download, integrity)
        folder = archive.parent / key
        return find(folder, name) or keep(
            folder, str(member), name, lambda target: unpack(member, archive, target)
        )


def _archive(
    member: Member, sha256: str | None, download: Callable[[Member, Path], Path], integrity: str | None
) -> Path:
    if sha256 is not None:
        archive = root() / sha256 / member.archive_name
        if archive.is_file() and sha256_file(archive) == sha256:
            return archive
    with scratch(root()) as temporary:
        downloaded = download(member, temporary)
        content = sha256_file(downloaded)
        expect(str(member), sha256, content)
        expect(str(member), integrity, sha512(downloaded), "sha512")
        archive = root() / content / member.archive_name
        with disk_errors(root()):
            archive.parent.mkdir(exist_ok=True)
            os.replace(downloaded, archive)
    if sha256 is None and integrity is None:
        _log.warning("%s is not pinned; add sha256: %s", member, content)
    return archive


def sha512(archive: Path) -> str:
    """As npm writes it."""
    with archive.open("rb") as file:
        return "sha512-" + base64.b64encode(hashlib.file_digest(file, "sha512").digest()).decode()


def extract(
    member: Member,
    files: Iterable[tuple[str, int, Callable[[], AbstractContextManager[IO[bytes]]]]],
    packed_bytes: int,
    target: Path,
) -> None:
    """Write the `files` (name, bytes, how to open) that the member names to `target`.

    Raises SourceError where there is none, where a path leaves its folder, and for an archive bomb.
    """
    names, size, parent = [], 0, PurePosixPath(member.inside).parent
    for name, file_bytes, opened in files:
        names.append(name)
        if name != member.inside and not name.startswith(f"{member.inside}/"):
            continue
        if not stays_inside(name):
            raise SourceError(f"a path in {member} leaves its folder", found=name, next="do not use it")
        size += file_bytes
        if size > _MAX_INFLATION * packed_bytes:
            raise SourceError(
                f"{member} grows too much when unpacked",
                found=f"more than {_MAX_INFLATION} times its size",
                next="do not use it: it may be a zip bomb",
            )
        path = target / PurePosixPath(name).relative_to(parent)
        with opened() as packed, disk_errors(root()):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                shutil.copyfileobj(packed, file, 1 << 20)
    if not target.exists():
        paths = {
            *names,
            *(str(folder) for name in names for folder in PurePosixPath(name).parents if folder.name),
        }
        near = get_close_matches(member.inside, paths, n=5) or [name for name in names if "/" not in name]
        raise SourceError(
            f"no such file or folder in {member.package}{member.before_version}{member.version}",
            found=member.inside,
            allowed=did_you_mean(member.inside, near),
        )


def regular_files(
    archive: tarfile.TarFile, strip: int = 0
) -> Iterator[tuple[str, int, Callable[[], AbstractContextManager[IO[bytes]]]]]:
    """Name without its first `strip` folders, bytes, how to open; no links, which could lead anywhere."""
    for entry in archive:
        if entry.isfile():
            opened = partial(archive.extractfile, entry)  # None for what is no regular file
            name = "/".join(entry.name.removeprefix("./").split("/")[strip:])
            yield name, entry.size, cast(Callable[[], AbstractContextManager[IO[bytes]]], opened)


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
        files = {file.relative_to(content).as_posix(): file for file in content.rglob("*") if file.is_file()}
        whole = files.keys() == expected.keys() and all(
            _as_written(file, **expected[path]) for path, file in files.items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return content / name if whole else None


def _as_written(file: Path, size: int, sha256: str, mtime_ns: int) -> bool:
    """Whether a file is untouched by its size and time; its bytes are only read where the time is another."""
    state = file.stat()
    return state.st_size == size and (state.st_mtime_ns == mtime_ns or sha256_file(file) == sha256)


def keep(folder: Path, source: str, name: str, unpack: Callable[[Path], None]) -> Path:
    """Have `unpack` fill a folder with `name` in it, and put that into the place of `folder` as a whole."""
    with scratch(root()) as temporary:
        content = temporary / "content"
        unpack(content)
        with disk_errors(root()):
            files = {
                file.relative_to(content).as_posix(): {
                    "size": file.stat().st_size,
                    "sha256": sha256_file(file),
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
