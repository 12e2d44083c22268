"""`npm:name@version/path/inside`: a file or folder inside a package of npm, `@org/name` those of a scope.

The npm command downloads it from the registry that it is configured with; none of its scripts runs. It is
pinned by the sha256 of its archive, or by the sha512 that a package-lock.json has.
"""

import json
import os
import re
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from compress.errors import CompressError, SourceError, StoreError
from compress.sources import unpacked
from compress.sources.cache import cache_dir, digest, locked, scratch
from compress.sources.unpacked import Member
from compress.system.disk import disk_errors, sha256_file

_NO_NETWORK = "ENOTFOUND|EAI_AGAIN|ECONN|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|ERR_SOCKET|network"


def parse(name: str) -> Member:
    """Raises SourceError unless `name` is `name@version/path/inside` with a path that stays inside."""
    words = r"(?:@[\w~][\w.~-]*/)?[\w~][\w.~-]*", r"\d[\w.+-]*", "name"
    package, version, inside = unpacked.split("npm", name, *words, before_version="@")
    archive = f"{package.replace('@', '').replace('/', '-')}-{version}.tgz"
    return Member(
        scheme="npm",
        package=package,
        version=version,
        inside=inside,
        archive_name=archive,
        before_version="@",
    )


def fetch(name: str, pin: str | None) -> Path:
    sha256, integrity = (None, pin) if pin and pin.startswith("sha512-") else (pin, None)
    return unpacked.fetch(parse(name), sha256, _download, _unpack, integrity)


def describe(name: str, pin: str | None) -> dict[str, str]:
    """Name, version and license by the package's own package.json."""
    member = parse(name)
    archive = fetch(name, pin).parents[2] / member.archive_name
    facts = {"name": member.package, "version": member.version, "sha256": archive.parent.name}
    manifest = parse(f"{member.package}@{member.version}/package.json")
    try:
        said = json.loads(fetch(f"{manifest}".removeprefix("npm:"), pin).read_text("utf-8"))
    except (SourceError, ValueError):
        return facts  # provenance is stated where it is known, never invented
    license = said.get("license") if isinstance(said, dict) else None
    return facts | ({"license": license} if isinstance(license, str) else {})


def identity(name: str) -> str:
    return digest(fetch(name, None))


def _download(member: Member, folder: Path) -> Path:
    wanted = f"{member.package}@{member.version}"
    npm(["pack", wanted, f"--pack-destination={folder}"], folder, wanted)
    packed = sorted(folder.glob("*.tgz"))
    if not packed:
        raise SourceError(f"npm cannot download {wanted}", found="it wrote no archive")
    return packed[0]


def _unpack(member: Member, archive: Path, target: Path) -> None:
    try:
        with tarfile.open(archive, "r:gz") as tar:
            files = unpacked.regular_files(tar, strip=1)  # the folder "package"
            unpacked.extract(member, files, archive.stat().st_size, target)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise SourceError(
            f"the package of {member} is damaged", found=error, next="pin another one"
        ) from None


def installed(lock: Path) -> Path:
    """A folder with the `node_modules` that `package-lock.json`, the file `lock`, pins by their sha512.

    Raises SourceError where npm is missing or a package cannot be had, StoreError where the cache cannot be
    written.
    """
    folder = cache_dir() / "npm" / sha256_file(lock)[:16]
    if (folder / "node_modules").is_dir():
        return folder
    with locked(folder.parent, folder.name):
        if not folder.exists():
            with scratch(folder.parent) as temporary:
                for name in ("package.json", lock.name):
                    shutil.copy(lock.with_name(name), temporary)
                npm(["ci", "--no-audit", "--no-fund"], temporary, "the packages of a JavaScript runtime")
                with disk_errors(folder.parent):
                    os.rename(temporary, folder)
    return folder


def npm(words: Sequence[str], folder: Path, what: str) -> str:
    """What `npm words` prints, run in `folder`; `what` is wanted of it, for the error."""
    program = shutil.which("npm")
    if program is None:
        raise SourceError(
            f"{what} need npm, which this system lacks",
            next="install Node.js with npm, on Debian: apt-get install nodejs npm",
        )
    limits = ["--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-timeout=60000"]
    done = subprocess.run(
        [program, *words, "--ignore-scripts", "--no-update-notifier", *limits],
        cwd=folder,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode != 0:
        raise explain(what, done.stderr)
    return done.stdout


def explain(what: str, stderr: str) -> CompressError:
    """What npm's complaint means for the user."""
    lines = [re.sub(r"^npm (error|ERR!) ?", "", line) for line in stderr.splitlines()]
    codes = ("code ", "errno ", "syscall ", "A complete log")
    errors = [line for line in lines if line and not line.startswith(codes)]
    found = errors[0] if errors else "npm said nothing"
    if "ENOSPC" in stderr:
        return StoreError(
            f"no space left in the cache for {what}",
            next="free some space, or set COMPRESS_CACHE to another folder",
        )
    if "EINTEGRITY" in stderr:
        return SourceError(
            f"{what}: the registry serves another file than the one that was pinned",
            found=found,
            next="do not use it; check the registry that npm is configured with",
        )
    if re.search(_NO_NETWORK, stderr, re.IGNORECASE):
        return SourceError(
            f"no network: npm cannot reach its registry for {what}",
            found=found,
            next="check the network or proxy, and `npm config get registry`",
        )
    return SourceError(f"npm cannot download {what}", found=found, next="see the message of npm")
