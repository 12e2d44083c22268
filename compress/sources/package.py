"""`package:dist==version/path/inside` a file or folder inside a published wheel.

pip downloads the wheel, without its dependencies and without running its code, for one named platform
and Python: so one pinned sha256 holds on every machine.
"""

import logging
import os
import re
import subprocess
import sys
import zipfile
import zlib
from email.parser import HeaderParser
from functools import partial
from pathlib import Path

from compress.errors import CompressError, SourceError, StoreError
from compress.sources import unpacked
from compress.sources.cache import digest
from compress.sources.unpacked import Member

_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
_PYTHON = "3.11"
_NO_NETWORK = "connection broken|max retries exceeded|timed out|connectionerror|proxyerror"
_log = logging.getLogger(__name__)


def parse(name: str) -> Member:
    """Raises SourceError unless `name` is `dist==version/path/inside` with a path that stays inside."""
    package, version, inside = unpacked.split("package", name, r"[A-Za-z0-9][\w.-]*", r"[\w.!+-]+", "dist")
    package = re.sub(r"[-_.]+", "-", package).lower()  # its normalised name
    archive = f"{package}-{version}.whl"
    return Member(scheme="package", package=package, version=version, inside=inside, archive_name=archive)


def fetch(name: str, sha256: str | None) -> Path:
    return unpacked.fetch(parse(name), sha256, _download, _unpack)


def describe(name: str, sha256: str | None) -> dict[str, str]:
    """Name, version and license by the wheel's own METADATA."""
    member = parse(name)
    content = fetch(name, sha256)
    wheel = content.parents[2] / member.archive_name
    facts = {"name": member.package, "version": member.version, "sha256": wheel.parent.name}
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            path = next(name for name in names if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
            headers = HeaderParser().parsestr(archive.read(path).decode("utf-8", "replace"))
    except (OSError, zipfile.BadZipFile, StopIteration):
        return facts  # provenance is stated where it is known, never invented
    license = headers["License-Expression"] or headers["License"]
    facts |= {"name": headers["Name"] or member.package, "version": headers["Version"] or member.version}
    return facts | ({"license": license.splitlines()[0]} if license else {})


def identity(name: str) -> str:
    return digest(fetch(name, None))  # a version names many wheels: only their content tells


def _download(member: Member, folder: Path) -> Path:
    requirement = f"{member.package}=={member.version}"
    _log.info("downloading %s", requirement)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += ["--quiet", "--no-input", "--disable-pip-version-check", "--retries=2", "--timeout=30"]
    command += [f"--python-version={_PYTHON}", "--implementation=cp", f"--abi=cp{_PYTHON.replace('.', '')}"]
    command += [f"--platform={platform}" for platform in _PLATFORMS]
    done = subprocess.run(
        [*command, f"--dest={folder}", requirement],
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, "TMPDIR": str(folder)},
    )
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        raise explain(requirement, done.stderr)
    return wheels[0]


def explain(requirement: str, stderr: str) -> CompressError:
    """What pip's complaint means for the user."""
    errors = [line.removeprefix("ERROR: ") for line in stderr.splitlines() if line.startswith("ERROR: ")]
    last = (errors or stderr.splitlines() or ["pip said nothing"])[-1]
    if "No space left on device" in stderr:
        return StoreError(
            f"no space left in the cache for {requirement}",
            next="free some space, or set COMPRESS_CACHE to another folder",
        )
    if "No module named pip" in stderr:
        return SourceError("pip is missing from this Python", next="run `python -m ensurepip`")
    if re.search(_NO_NETWORK, stderr, re.IGNORECASE):
        return SourceError(
            f"no network: pip cannot reach a package index for {requirement}",
            found=last,
            next="check the network or proxy, or download it elsewhere and use path:",
        )
    versions = re.search(r"\(from versions: ([^)]*)\)", stderr)
    if versions is None:
        return SourceError(f"pip cannot download {requirement}", found=last, next="see the message of pip")
    hint = " (PIP_NO_INDEX is set: no index is asked)" if os.environ.get("PIP_NO_INDEX") else ""
    return SourceError(
        f"no wheel of {requirement} for CPython {_PYTHON} on Linux x86-64{hint}",
        found="no such package" if versions.group(1) == "none" else "no such version",
        allowed=versions.group(1),
        next="check the spelling of name and version",
    )


def _unpack(member: Member, wheel: Path, target: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            files = [
                (entry.filename, entry.file_size, partial(archive.open, entry))
                for entry in archive.infolist()
                if not entry.is_dir()
            ]
            unpacked.extract(member, files, wheel.stat().st_size, target)
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError) as error:
        raise SourceError(f"the wheel of {member} is damaged", found=error, next="pin another one") from None
