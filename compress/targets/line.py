"""The line to a host: requests to `runner/host.py` there, by the system's OpenSSH and the user's settings.

Nothing is asked on the screen (BatchMode): a host that wants a password, or is not known yet, is an error.
All requests of a process to one host share a connection, which ends with the process.
"""

import json
import logging
import os
import shlex
import shutil
import subprocess
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from compress.errors import BenchmarkError, CompressError, ConfigError
from compress.runner import host as far_end

log = logging.getLogger(__name__)
RECONNECT_SECONDS = 300.0  # that a line which was there once may be down
CHUNK_BYTES = 2**20
OPTIONS = {
    "BatchMode": "yes",
    "ConnectTimeout": "10",
    "ServerAliveInterval": "5",  # with the next: a line without a sign of life for 15 s is down
    "ServerAliveCountMax": "3",
    "ControlMaster": "auto",
    "ControlPersist": "60",  # and no longer, where this process was killed
    "LogLevel": "ERROR",
}
# Runs the source that comes first on stdin; older Pythons must be able to read these lines.
LOADER = (
    "import sys;v=sys.version_info;v<(3,11) and sys.exit('compress-old-python %d.%d'%v[:2]);"
    "exec(sys.stdin.buffer.read({size}));main()"
)
# What ssh says -> what is wrong, and what to do. It is a line that may come back where `again`.
OFF = "see whether it is on, and its network"
REFUSALS: tuple[tuple[str, bool, str, str], ...] = (
    ("HOST IDENTIFICATION HAS CHANGED", False, "another host than before, or somebody between",
     "ask who runs it; then ssh-keygen -R {host}, and log in once by hand"),
    ("host key", False, "the host is not known yet", "log in once by hand and compare its key: ssh {host}"),
    ("Permission denied", False, "the host accepts no key of yours",
     "ssh-copy-id {host}, or ssh-add; ssh {host} true must work without a question"),
    ("Too many authentication failures", False, "the host accepts no key of yours",
     "name the key: IdentityFile and IdentitiesOnly yes in your ssh config"),
    ("Could not resolve hostname", True, "there is no host of this name",
     "target.host=NAME, as in your ssh config, or user@address"),
    ("Connection refused", True, "the host refuses a connection", "see whether its ssh server runs"),
    ("timed out", True, "the host does not answer", OFF),
    ("No route to host", True, "the host cannot be reached", OFF),
    ("Network is unreachable", True, "the host cannot be reached", OFF),
)  # fmt: skip
Result = TypeVar("Result")


class Down(Exception):
    """No connection, or it broke; it may come back."""

    def __init__(self, error: CompressError) -> None:
        super().__init__(str(error))
        self.error = error


class Line:
    def __init__(self, host: str, folder: str, python: str | None) -> None:
        if not host or host.startswith("-"):
            raise ConfigError(
                "the target has no host",
                found=host or "nothing",
                next="target.host=NAME, as in your ssh config, or user@address",
            )
        if not shutil.which("ssh"):
            raise ConfigError("there is no ssh here", next="install OpenSSH's client, or target=local")
        self.host, self.folder, self.python = host, folder, python or "python3"
        self.was_up = False
        sockets = tempfile.mkdtemp(prefix="compress-", dir="/tmp")  # a socket's path has at most 100 letters
        self.command = ["ssh", "-o", f"ControlPath={sockets}/line"]
        for name, value in OPTIONS.items():
            self.command += ["-o", f"{name}={value}"]
        self._close = weakref.finalize(self, _hang_up, [*self.command, "-O", "exit", "--", host], sockets)

    def close(self) -> None:
        self._close()

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """The reply to one request, which may be sent twice where the line breaks. Raises BenchmarkError."""

        def once() -> dict[str, Any]:
            with self.request(do, **request) as replies:
                return read_reply(replies)

        return self.through(once)

    def through(self, act: Callable[[], Result]) -> Result:
        """What `act` returns, begun anew as long as a line is down that was up before."""
        since, pause = None, 1.0
        while True:
            try:
                return act()
            except Down as down:
                since = since or time.monotonic()
                if not self.was_up or time.monotonic() + pause - since > RECONNECT_SECONDS:
                    raise down.error from None
                log.warning("the line to %s is down; tried again for %.0f s", self.host, RECONNECT_SECONDS)
                time.sleep(pause)
                pause = min(2 * pause, 10.0)

    @contextmanager
    def request(
        self, do: str, payload: Iterable[bytes] = (), keep_open: bool = False, **words: Any
    ) -> Iterator[IO[bytes]]:
        """What the host replies, from behind the mark on. Raises Down where the line breaks, ConfigError
        where it cannot be had, BenchmarkError for what else goes wrong there.

        `payload` follows the request; with `keep_open` the host can tell whether this process lives.
        """
        source = Path(far_end.__file__).read_bytes()
        command = f"{self.python} -I -c {shlex.quote(LOADER.format(size=len(source)))}"
        words = {"do": do, "folder": self.folder, **words}
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(
                [*self.command, "--", self.host, command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                start_new_session=True,  # Ctrl-C is for us: what runs there is ended by a request
            )
            assert process.stdin
            assert process.stdout
            try:
                try:
                    for data in (source, json.dumps(words).encode() + b"\n"):
                        process.stdin.write(data)
                    for data in payload:
                        process.stdin.write(data)
                    process.stdin.flush()
                    if not keep_open:
                        process.stdin.close()
                except BrokenPipeError:
                    pass  # what it said tells why
                for line in process.stdout:
                    if line.strip() == far_end.MARK.encode():
                        self.was_up = True
                        break
                else:
                    raise self.broken(process.wait(), said)
                try:
                    yield process.stdout
                except EOFError:  # of `read_reply`, and of whoever reads what is behind one
                    raise self.broken(process.wait(), said) from None
            finally:
                if process.poll() is None:
                    process.kill()
                for pipe in (process.stdin, process.stdout):
                    with suppress(BrokenPipeError):
                        pipe.close()
                process.wait()

    def broken(self, code: int, said: IO[bytes]) -> Exception:
        """Why there was no reply."""
        said.seek(0)
        text = said.read().decode(errors="replace").strip()
        last = text.splitlines()[-1].strip() if text else f"ssh ended with exit code {code}"
        if "compress-old-python" in last:
            return ConfigError(
                f"the Python of {self.host} is too old",
                found=f"{self.python} is {last.split()[-1]}",
                allowed="3.11 and later",
                next="target.python=/path/to/a/newer/python there",
            )
        if code in (126, 127):
            return ConfigError(
                f"{self.host} has no Python of this name",
                found=last,
                allowed="a Python 3.11 and later, by its name or path there",
                next="target.python=/path/there, or install python3",
            )
        if code != 255 and code >= 0:
            return BenchmarkError(f"{self.host} could not do what it was asked", found=last)
        for sign, again, what, hint in REFUSALS:
            if sign.lower() in text.lower():
                refusal = ConfigError(what, found=f"{self.host}: {last}", next=hint.format(host=self.host))
                return Down(refusal) if again else refusal
        return Down(
            BenchmarkError(
                f"the line to {self.host} broke",
                found=last,
                next="see whether the host is on; the same command takes up after the finished stages",
            )
        )


def read_reply(replies: IO[bytes]) -> dict[str, Any]:
    """The next line of a reply. Raises EOFError where it has none, BenchmarkError for an error there."""
    line = replies.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    reply: dict[str, Any] = json.loads(line)
    if reply.get("errno") in ("ENOSPC", "EDQUOT"):
        raise BenchmarkError(
            "the host's disk is full",
            found=reply["error"],
            next="free some there, or target.workdir=/a/folder/on/another/disk",
        )
    if "errno" in reply:
        raise BenchmarkError(
            "the host cannot use its work folder",
            found=reply["error"],
            next="target.workdir=/a/folder/that/you/may/write",
        )
    return reply


def _hang_up(command: list[str], sockets: str) -> None:
    if os.path.exists(f"{sockets}/line"):
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False)
    shutil.rmtree(sockets, ignore_errors=True)
