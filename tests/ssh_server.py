"""A real ssh server of this machine on loopback, with keys and settings of its own in a temporary folder."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from compress.config.target import SshTarget
from compress.targets import ssh

SSH = shutil.which("ssh")


class SshServer:
    """`folder` holds keys, the server's settings, and a user's (`config`), which call it `name`."""

    def __init__(self, folder: Path, name: str = "bench", address: str = "127.0.0.1", port: int = 0) -> None:
        self.folder, self.name, self.address = folder, name, address
        self.port = port or free_port()
        self.process: subprocess.Popen | None = None
        for key in ("server", "user"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)]
            subprocess.run(command, check=True)
        shutil.copy(folder / "user.pub", folder / "authorized")
        self.trust()
        (folder / "settings").write_text(f"""\
Port {self.port}
ListenAddress {address}
HostKey {folder}/server
AuthorizedKeysFile {folder}/authorized
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 100
""")
        (folder / "config").write_text(f"""\
Host {name}
  HostName {address}
  Port {self.port}
  IdentityFile {folder}/user
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known
  GlobalKnownHostsFile none
  StrictHostKeyChecking yes
""")

    def trust(self) -> None:
        """Write down the server's key, as one who has logged in by hand has."""
        key = (self.folder / "server.pub").read_text()
        (self.folder / "known").write_text(f"[{self.address}]:{self.port} {key}")

    def start(self, *before: str) -> None:
        os.makedirs("/run/sshd", exist_ok=True)
        command = [
            *before,
            shutil.which("sshd") or "/usr/sbin/sshd",
            "-D",
            "-e",
            "-f",
            f"{self.folder}/settings",
        ]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 10
        while not (self.folder / "log").read_bytes().count(b"Server listening"):
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def connections(self) -> list[psutil.Process]:
        assert self.process
        return psutil.Process(self.process.pid).children(recursive=True)

    def drop(self) -> None:
        """Break all connections; what detached itself from them goes on."""
        for each in self.connections():
            with contextlib.suppress(psutil.NoSuchProcess):  # it ends by itself, too
                if each.name() == "sshd":
                    each.send_signal(signal.SIGKILL)

    def stop(self) -> None:
        if self.process:
            self.drop()
            self.process.kill()
            self.process.wait()
            (self.folder / "log").unlink()
            self.process = None


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture(scope="session")
def ssh_server() -> Iterator[SshServer]:
    if not (shutil.which("sshd") or Path("/usr/sbin/sshd").exists()):
        pytest.skip("no OpenSSH server here: apt-get install openssh-server")
    with tempfile.TemporaryDirectory(prefix="sshd-") as folder:
        server = SshServer(Path(folder))
        server.start()
        yield server
        ssh.connect.cache_clear()
        server.stop()


@pytest.fixture
def with_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Path], None]:
    """`with_settings(config)`: ssh reads these settings, as if they were the user's own."""

    def use(config: Path) -> None:
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / "ssh").write_text(f'#!/bin/sh\nexec {SSH} -F {config} "$@"\n')
        (tmp_path / "bin" / "ssh").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)

    return use


@pytest.fixture
def ssh_host(ssh_server: SshServer, with_settings: Callable[[Path], None]) -> dict[str, str]:
    """What a target says of the server: its name, this Python, a work folder."""
    with_settings(ssh_server.folder / "config")
    return {"host": ssh_server.name, "python": sys.executable, "workdir": f"{ssh_server.folder}/work"}


def with_host(kind: Callable[..., Any], request: pytest.FixtureRequest) -> Callable[..., Any]:
    """A kind of target; that of ssh is told of the server here."""
    return partial(kind, **request.getfixturevalue("ssh_host")) if kind is SshTarget else kind
