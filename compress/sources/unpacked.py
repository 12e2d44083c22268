"""What came out of an archive and is kept in the cache: `FOLDER/content/...` and `FOLDER/manifest.json`."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from compress.sources.cache import cache_dir, file_sha256, scratch, writing


def root() -> Path:
    return cache_dir() / "sources"


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
