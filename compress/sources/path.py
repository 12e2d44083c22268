"""`path:` a file or folder that is here already; relative paths start at the working directory."""

import os
from pathlib import Path

from compress.errors import SourceError, did_you_mean
from compress.sources.cache import digest, expect


def fetch(name: str, sha256: str | None) -> Path:
    target = Path(name).expanduser().absolute()
    if not target.exists():
        beside = [entry.name for entry in target.parent.iterdir()] if target.parent.is_dir() else []
        raise SourceError(
            "no such file or folder",
            found=target,
            allowed=did_you_mean(target.name, beside[:50]) if beside else None,
            next="relative paths start at the working directory",
        )
    if not os.access(target, os.R_OK):
        raise SourceError(f"cannot read {target}", next="check its permissions")
    if sha256 is not None:
        expect(f"path:{name}", sha256, digest(target))
    return target


def describe(name: str, sha256: str | None) -> dict[str, str]:
    target = fetch(name, sha256)
    return {"name": target.name, "sha256": sha256 or digest(target)}


def identity(name: str) -> str:
    return digest(fetch(name, None))
