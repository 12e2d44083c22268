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
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from compress.errors import SourceError, did_you_mean
from compress.sources import unpacked
from compress.sources.cache import digest, writing

_MAX_INFLATION = 200  # unpacked bytes per byte of package
_NO_NETWORK = (
    "could not resolve|temporary failure|connection failed|timed out|unable to connect|could not connect"
)


@dataclass(frozen=True, kw_only=True)
class Member:
    """A file or folder `inside` of `package` at `version`."""

    package: str
    version: str
    inside: str

    @property
    def archive_name(self) -> str:
        return f"{self.package}_{self.version.replace(':', '%3a')}.deb"

    def __str__(self) -> str:
        return f"debian:{self.package}=={self.version}/{self.inside}"


def parse(name: str) -> Member:
    """Raises SourceError unless `name` is `package==version/path/inside` with a path that stays inside."""
    match = re.fullmatch(r"([a-z0-9][a-z0-9+.-]+)==([\w.+~:-]+)/(.+)", name)
    if match is None or not unpacked.stays_inside(match.group(3).rstrip("/")):
        raise SourceError(
            "not a file in a Debian package",
            found=f"debian:{name}",
            allowed="debian:package==version/path/inside",
        )
    return Member(package=match.group(1), version=match.group(2), inside=match.group(3).rstrip("/"))


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
    found = sorted(folder.glob("*.deb"))
    if done.returncode != 0 or not found:
        for name in ("lists/partial", "archives/partial"):
            (folder / name).mkdir(parents=True)
        own = [f"Dir::State::lists={folder}/lists", f"Dir::Cache={folder}", "Dir::State::status=/dev/null"]
        options = [word for option in own for word in ("-o", option)]
        update = _apt([*options, "update"], folder)
        done = _apt([*options, "download", f"{member.package}={member.version}"], folder)
        found = sorted(folder.glob("*.deb"))
        if done.returncode != 0 or not found:
            raise _explain(member, update.stderr + done.stderr, options, folder)
    return found[0]


def _apt(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    command = ["apt-get", "-q", "-o", "Acquire::Retries=2", *words]
    english = {**os.environ, "LC_ALL": "C.UTF-8"}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", env=english)


def _explain(member: Member, said: str, options: list[str], folder: Path) -> SourceError:
    errors = [line.removeprefix("E: ") for line in said.splitlines() if line.startswith("E: ")]
    last = (errors or said.splitlines() or ["apt-get said nothing"])[-1]
    if re.search(_NO_NETWORK, said, re.IGNORECASE):
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
    """Regular files only: a link could lead anywhere."""
    names, size = [], 0
    process = subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    parent = PurePosixPath(member.inside).parent
    try:
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for entry in archive:
                name = entry.name.removeprefix("./")
                names.append(name)
                if not (name == member.inside or name.startswith(f"{member.inside}/")) or not entry.isfile():
                    continue
                if not unpacked.stays_inside(name):
                    raise SourceError(
                        f"a path in {member} leaves its folder", found=name, next="do not use it"
                    )
                size += entry.size
                if size > _MAX_INFLATION * deb.stat().st_size:
                    raise SourceError(
                        f"{member} grows too much when unpacked",
                        found=f"more than {_MAX_INFLATION} times its size",
                        next="do not use it: this is how an archive bomb looks",
                    )
                path = target / PurePosixPath(name).relative_to(parent)
                packed = archive.extractfile(entry)
                assert packed is not None  # it is a regular file
                with packed, writing(unpacked.root()):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with path.open("wb") as file:
                        shutil.copyfileobj(packed, file, 1 << 20)
    except (tarfile.TarError, EOFError) as error:
        raise SourceError(f"the package of {member} is damaged", found=error, next="fetch it again") from None
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    if not size:
        raise SourceError(
            f"no such file or folder in {member.package}=={member.version}",
            found=member.inside,
            allowed=did_you_mean(member.inside, names),
        )
