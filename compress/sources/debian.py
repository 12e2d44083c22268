"""`debian:package==version/path/inside`: a file or folder inside a Debian package.

apt downloads it (no root needed: the package is not installed and none of its scripts run) from the
machine's own package sources and checks their signature; dpkg-deb unpacks it. Data is the same on every
architecture, so the sha256 of the .deb pins it.
"""

import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

from compress.errors import SourceError
from compress.sources import unpacked
from compress.sources.cache import digest
from compress.sources.unpacked import Member

_NO_NETWORK = (
    "could not resolve|temporary failure|connection failed|timed out|unable to connect|could not connect"
)


def parse(name: str) -> Member:
    """Raises SourceError unless `name` is `package==version/path/inside` with a path that stays inside."""
    package, version, inside = unpacked.split(
        "debian", name, r"[a-z0-9][a-z0-9+.-]+", r"[\w.+~:-]+", "package"
    )
    archive = f"{package}_{version.replace(':', '%3a')}.deb"
    return Member(scheme="debian", package=package, version=version, inside=inside, archive_name=archive)


def fetch(name: str, sha256: str | None) -> Path:
    return unpacked.fetch(parse(name), sha256, _download, _unpack)


def describe(name: str, sha256: str | None) -> dict[str, str]:
    """Name, version and sha256; a package's copyright file names licenses for people, not for programs."""
    member = parse(name)
    deb = fetch(name, sha256).parents[2]
    return {"name": member.package, "version": member.version, "sha256": deb.name}


def identity(name: str) -> str:
    return digest(fetch(name, None))


def _download(member: Member, folder: Path) -> Path:
    """By the lists of packages that the machine has; where they lack it, by lists of our own."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise SourceError(
            f"{member} needs apt-get and dpkg-deb, which this system lacks",
            next="unpack the .deb elsewhere and use path:",
        )
    done = _apt(["download", f"{member.package}={member.version}"], folder)
    packages = sorted(folder.glob("*.deb"))
    if done.returncode != 0 or not packages:
        for name in ("lists/partial", "archives/partial"):
            (folder / name).mkdir(parents=True)
        own = [f"Dir::State::lists={folder}/lists", f"Dir::Cache={folder}", "Dir::State::status=/dev/null"]
        options = [word for option in own for word in ("-o", option)]
        update = _apt([*options, "update"], folder)
        done = _apt([*options, "download", f"{member.package}={member.version}"], folder)
        packages = sorted(folder.glob("*.deb"))
        if done.returncode != 0 or not packages:
            raise _explain(member, update.stderr + done.stderr, options, folder)
    return packages[0]


def _apt(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    command = ["apt-get", "-q", "-o", "Acquire::Retries=2", *words]
    english = {**os.environ, "LC_ALL": "C.UTF-8"}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", env=english)


def _explain(member: Member, output: str, options: list[str], folder: Path) -> SourceError:
    errors = [line.removeprefix("E: ") for line in output.splitlines() if line.startswith("E: ")]
    last = (errors or output.splitlines() or ["apt-get said nothing"])[-1]
    if re.search(_NO_NETWORK, output, re.IGNORECASE):
        return SourceError(
            f"no network: apt-get cannot reach its package sources for {member.package}",
            found=last,
            next="check the network or proxy, or unpack the .deb elsewhere and use path:",
        )
    listed = subprocess.run(
        ["apt-cache", *options, "madison", member.package], cwd=folder, capture_output=True, text=True
    ).stdout
    versions = sorted({line.split("|")[1].strip() for line in listed.splitlines() if line.count("|") == 2})
    return SourceError(
        f"apt-get cannot download {member.package}={member.version}",
        found=last,
        allowed=", ".join(versions) or None,
        next="check name and version against this system's package sources",
    )


def _unpack(member: Member, deb: Path, target: Path) -> None:
    process = subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            unpacked.extract(member, unpacked.regular_files(archive), deb.stat().st_size, target)
    except (tarfile.TarError, EOFError) as error:
        raise SourceError(f"the package of {member} is damaged", found=error, next="fetch it again") from None
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
