"""npm's packages, fetched by the npm command; none of their scripts runs."""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from compress.errors import CompressError, SourceError, StoreError
from compress.sources.cache import cache_dir, locked, scratch
from compress.system.disk import disk_errors, sha256_file

_NO_NETWORK = (
    "ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|ERR_SOCKET|network"
)


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
    limits = ["--fetch-retries=2", "--fetch-retry-maxtimeout=10000", "--fetch-timeout=60000"]
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
