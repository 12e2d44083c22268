"""`path:` a file or folder that is here already; relative paths start at the working directory."""

import os
from pathlib import Path

from compress.errors import SourceError, did_you_mean
from compress.sources.cache import digest, expect


def fetch(name: str, sha256: str | None) -> Path:
    found = Path(name).expanduser().absolute()
    if not found.exists():
        beside = [entry.name for entry in found.parent.iterdir()] if found.parent.is_dir() else []
        raise SourceError(
            "no such file or folder",
            found=found,
            allowed=did_you_mean(found.name, beside[:50]) if beside else None,
            next="relative paths start at the working directory",
        )
    if not os.access(found, os.R_OK):
        raise SourceError(f"cannot read {found}", next="check its permissions")
    if sha256 is not None:
        expect(f"path:{name}", sha256, digest(found))
    return found


def describe(name: str, sha256: str | None) -> dict[str, str]:
    found = fetch(name, sha256)
    return {"name": found.name, "sha256": sha256 or digest(found)}


def identity(name: str) -> str:
    return digest(fetch(name, None))
