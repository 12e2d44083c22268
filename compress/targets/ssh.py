"""A host that is reached by OpenSSH: what a job needs is sent there and runs detached from the line."""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from compress.config.target import SshTarget
from compress.errors import BenchmarkError, CompressError, ConfigError
from compress.runner import with_onnxruntime
from compress.targets import line as line_module
from compress.targets.bundle import Files, moved, pack, placed
from compress.targets.line import CHUNK_BYTES, Down, Line, read_reply
from compress.targets.local import Local, failed, hung

log = logging.getLogger(__name__)
RESULT = "result.json"
ALONE = ("time", "profile", "limits")  # jobs that measure


class Ssh(Local):
    config: SshTarget
    interleaves = False

    def __init__(self, config: SshTarget) -> None:
        super().__init__(config)
        self.host = connect(config.host, config.workdir, config.python, config.venv)

    def _facts(self) -> dict[str, Any]:
        facts = self.host.facts()
        lacks = sorted(set(self.config.cpu_flags or ()) - set(facts["flags"]))
        if lacks:
            raise ConfigError(
                f"{self.config.host} cannot run at its best what target.cpu_flags asks for",
                found=f"{facts['model']} ({facts['architecture']}) lacks {', '.join(lacks)}",
                allowed=", ".join(facts["flags"]),
                next="leave target.cpu_flags out: models are built for the host's own",
            )
        return dict(facts)

    def lock(self) -> AbstractContextManager[None]:
        return nullcontext()  # each job waits for its turn there, and keeps it though the line breaks

    def run(
        self, job: Mapping[str, Any], files: Sequence[Path], scratch: Path, seconds: float
    ) -> dict[str, Any]:
        with TemporaryDirectory() as folder:
            there, copies = placed([*files, pack(Path(folder))])
            self.host.send(there)
            job = moved({**self.runs_with(), **job}, copies)
            return self.host.run(job, there, scratch, seconds)


class Host:
    """A host with its Python; what it was asked once it is not asked again."""

    def __init__(self, line: Line, venv: bool) -> None:
        self.line, self.venv = line, venv
        self.known: dict[str, Any] = {}

    def python(self) -> str | None:
        """The Python that runs the jobs; None: the one at the end of the line."""
        if self.venv and "python" not in self.known:
            log.info("making an environment on %s where there is none yet", self.line.host)
            self._learn(
                "venv",
                {"requirements": requirements()},
                f"no environment could be made on {self.line.host}",
                allowed="a Python with venv, pip that reaches its index, and disk",
                next="target.python=/path/to/a/python/with/numpy/and/onnxruntime there",
            )
        python: str | None = self.known.get("python")
        return python

    def facts(self) -> dict[str, Any]:
        if "facts" not in self.known:
            python = self.python()
            with TemporaryDirectory() as folder:
                there, _ = placed([pack(Path(folder))])
                self.send(there)
            [runner] = there
            self._learn(
                "facts",
                {"runner": runner.sha256, "runtime": "onnxruntime", "python": python},
                f"the Python of {self.line.host} cannot run models",
                allowed="one that has numpy and onnxruntime",
                next="target.venv=true makes one there, target.python=/path/there names one",
            )
        facts: dict[str, Any] = self.known["facts"]
        return facts

    def _learn(self, do: str, request: Mapping[str, Any], wrong: str, allowed: str, next: str) -> None:
        """Keep what the host replies; ConfigError with what it says where it cannot."""
        reply = self.line.ask(do, **request)
        if "error" in reply:
            raise ConfigError(wrong, found=reply["error"], allowed=allowed, next=next)
        self.known |= reply

    def send(self, files: Files) -> None:
        """Have the host hold these files; those that it has are not sent, nor what it has of one."""
        paths = {each.sha256: each.path for each in files}
        sizes = {sha256: path.stat().st_size for sha256, path in paths.items()}

        def once() -> bool:
            with self.line.request("have", files=sizes) as replies:
                have = read_reply(replies)
            parts = [(name, there, sizes[name] - there) for name, there in have["missing"].items()]
            wanted = sum(size for _, _, size in parts)
            if wanted > have["free_bytes"]:
                raise BenchmarkError(
                    f"the disk of {self.line.host} is too small",
                    found=f"{have['free_bytes'] / 1e6:.1f} MB free where {self.line.folder} lies",
                    allowed=f"{wanted / 1e6:.1f} MB for what is still to be sent",
                    next="free some there, or target.workdir=/a/folder/on/another/disk",
                )
            if not parts:
                return True
            content = chunks((paths[name], there) for name, there, _ in parts)
            with self.line.request("receive", content, files=parts) as replies:
                return not read_reply(replies).get("again", False)

        for _ in range(10):
            if self.line.through(once):
                return
        raise BenchmarkError(
            f"files arrive damaged on {self.line.host}, or others send the same ones", next="try again later"
        )

    def run(self, job: Mapping[str, Any], files: Files, scratch: Path, seconds: float) -> dict[str, Any]:
        """The result of a job whose files are there; what else it writes goes to `scratch`."""
        line, name = self.line, uuid4().hex
        request = {
            "id": name,
            "job": job,
            "places": [(each.sha256, each.place) for each in files],
            "python": self.python(),
            "alone": job["do"] in ALONE,
            "seconds": seconds,
            "lease_seconds": 2 * line_module.RECONNECT_SECONDS,
        }
        try:
            ended = line.through(lambda: self._job(request, scratch))
            if ended.get("lost"):
                raise BenchmarkError(
                    f"the job on {line.host} ended without a result",
                    found="nothing watches it any more: the host was started anew, or its memory ran out",
                    next="the same command again; finished stages are kept",
                )
            if ended["hung"]:
                raise hung(seconds)
            if ended["code"]:
                raise failed(ended["said"], ended["code"])
        finally:  # also on Ctrl-C: nothing may go on measuring
            self._end(name)
        result: dict[str, Any] = json.loads((scratch / RESULT).read_text())
        return result

    def _job(self, request: Mapping[str, Any], scratch: Path) -> dict[str, Any]:
        """How the job ended; its results are in `scratch`."""
        with self.line.request("job", keep_open=True, **request) as replies:
            while "waiting" in (reply := read_reply(replies)):
                log.warning(
                    "waiting for another process of ours that computes or times models on %s (%s)",
                    self.line.host,
                    reply["waiting"],
                )
            for file, left in reply.get("sizes", {}).items():
                with (scratch / file).open("wb") as here:
                    while left:
                        data = replies.read(min(left, CHUNK_BYTES))
                        if not data:
                            raise EOFError
                        here.write(data)
                        left -= len(data)
            return reply

    def _end(self, name: str) -> None:
        """One try: a job that nobody asks for ends by itself."""
        try:
            with self.line.request("end", id=name) as replies:
                read_reply(replies)
        except (Down, CompressError) as error:
            log.warning(
                "%s could not be told to end its job, which it does by itself within %.0f s: %s",
                self.line.host,
                2 * line_module.RECONNECT_SECONDS,
                str(error).splitlines()[0],
            )


def requirements() -> list[str]:
    """What models and the code of a card of texts run with, in the releases that we use here."""
    runtime = with_onnxruntime.runtime_facts()
    return [
        "numpy",
        f"{runtime['distribution']}=={runtime['version']}",
        f"tokenizers=={version('tokenizers')}",
    ]


@cache
def connect(host: str, folder: str, python: str | None, venv: bool) -> Host:
    """One a process: its connection, and what it said, serve all that is asked of it."""
    return Host(Line(host, folder, python), venv)


def chunks(files: Iterable[tuple[Path, int]]) -> Iterator[bytes]:
    """The content of each file from that byte on, piece by piece."""
    for path, offset in files:
        with path.open("rb") as file:
            file.seek(offset)
            while data := file.read(CHUNK_BYTES):
                yield data
