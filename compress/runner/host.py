"""The far end of an ssh line: keeps files by what they hold, and runs jobs that outlive the line.

This source is sent ahead of each request and run by the host's Python, which needs nothing beside it. A
request is a line of JSON {"do", "folder", ...}; some have bytes behind it. The reply is a line of JSON behind
the line `MARK`, since a shell's start-up files may print too; some have bytes behind it, some several lines.

In the folder: `files/SHA256`, what was sent; `files/SHA256.part`, what of it came so far; `jobs/ID/`, links
to what the job reads, and what it writes. Each job has a process of its own that watches it, ends it when it
is told to, when its time is up or when nobody has asked for it for some minutes, and removes its folder.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import IO, Any

MARK = "compress-reply"
RESULTS = ("result.json", "outputs.npz")
UNUSED_SECONDS = 7 * 86400.0  # how long a file that nobody asked for is kept
STEP_SECONDS = 0.2  # between two looks: nothing that a benchmark feels
Words = dict[str, Any]  # of a request or a reply
KEPT = ("PATH", "HOME", "TMPDIR", "LANG", "LD_LIBRARY_PATH")  # as on this machine (targets/local.py)


def have(request: Words) -> Words:
    """What of `files` (SHA256 -> bytes) is missing, with how much of it lies here; bytes that are free."""
    folder = os.path.join(request["folder"], "files")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    missing = {}
    for name in request["files"]:
        path = os.path.join(folder, name)
        if os.path.exists(path):
            os.utime(path)
        else:
            missing[name] = os.path.getsize(path + ".part") if os.path.exists(path + ".part") else 0
    forget(request["folder"])
    return {"missing": missing, "free_bytes": shutil.disk_usage(folder).free}


def forget(folder: str) -> None:
    """Remove files that were not asked for lately, and the jobs of a machine that was switched off."""
    for name in os.listdir(os.path.join(folder, "files")):
        path = os.path.join(folder, "files", name)
        with contextlib.suppress(FileNotFoundError):  # another one forgets, too
            if time.time() - os.path.getmtime(path) > UNUSED_SECONDS:
                os.remove(path)
    jobs = os.path.join(folder, "jobs")
    for name in os.listdir(jobs) if os.path.isdir(jobs) else []:
        path = os.path.join(jobs, name)
        with contextlib.suppress(FileNotFoundError):
            if time.time() - os.path.getmtime(path) > 60 and not watched(path):
                shutil.rmtree(path)


def receive(request: Words) -> Words:
    """Add the bytes behind the request to the files that they belong to: [SHA256, bytes here, bytes to come].

    Replies {"again": true} where another one has sent meanwhile.
    """
    folder = os.path.join(request["folder"], "files")
    for name, offset, size in request["files"]:
        path = os.path.join(folder, name)
        with open(path + ".part", "ab") as part:
            fcntl.flock(part, fcntl.LOCK_EX)
            if os.path.exists(path) or part.tell() != offset:
                return {"again": True}
            left = size
            while left and (data := sys.stdin.buffer.read(min(left, 2**20))):
                part.write(data)
                left -= len(data)
            part.flush()
            if left:
                return {"again": True}  # the line ended: what came is kept
            os.fsync(part.fileno())
            with open(path + ".part", "rb") as whole:
                found = hashlib.file_digest(whole, "sha256").hexdigest()
            if found != name:
                os.remove(path + ".part")
                return {"again": True}
            os.rename(path + ".part", path)
    return {}


def facts(request: Words) -> Words:
    """What the runner in the file `runner` says of this machine and of the runtime."""
    runner = os.path.join(request["folder"], "files", request["runner"])
    command = [request["python"] or sys.executable, "-I", runner, "--facts", request["runtime"]]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    if ended.returncode:
        return {"error": last_line(ended.stderr) or f"exit code {ended.returncode}"}
    return {"facts": json.loads(ended.stdout)}


def venv(request: Words) -> Words:
    """A virtual environment with these requirements, made where it is not there yet; its Python's path."""
    wanted = json.dumps([sys.executable, sys.version, request["requirements"]]).encode()
    folder = os.path.join(request["folder"], "venv-" + hashlib.sha256(wanted).hexdigest()[:16])
    python, ready = (os.path.join(folder, name) for name in ("bin/python", "ready"))
    os.makedirs(request["folder"], mode=0o700, exist_ok=True)
    with open(folder + ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(ready):
            shutil.rmtree(folder, ignore_errors=True)
            install = [python, "-I", "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
            for command in (
                [sys.executable, "-I", "-m", "venv", folder],
                [*install, "--only-binary", ":all:", *request["requirements"]],
            ):
                ended = subprocess.run(command, capture_output=True, text=True, check=False)
                if ended.returncode:
                    said = f"{ended.stdout}\n{ended.stderr}".strip().splitlines()
                    errors = [line for line in said if "error" in line.lower()]
                    shutil.rmtree(folder, ignore_errors=True)
                    return {"error": " ".join((errors or said)[-1:]) or f"exit code {ended.returncode}"}
            with open(ready, "w"):
                pass
    return {"python": python}


# ---------------------------------------------------------------- a job


def job(request: Words) -> None:
    """Run the job `id`, wait for its end, reply how it ended and with the bytes of its results.

    Sent again where the line broke: what is started or has ended already is not started again.
    """
    folder = job_folder(request)
    if not os.path.isdir(folder):
        start(request, folder)
    if (ended := wait(folder)) is None:
        return
    names = [name for name in RESULTS if not ended.get("code") and os.path.exists(os.path.join(folder, name))]
    sizes = {name: os.path.getsize(os.path.join(folder, name)) for name in names}
    print(json.dumps({**ended, "sizes": sizes}), flush=True)
    for name in names:
        with open(os.path.join(folder, name), "rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
    sys.stdout.buffer.flush()


def start(request: Words, folder: str) -> None:
    """Put the files in place and have a process of its own watch the job."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    # Locked as long as somebody watches the job.
    watch = open(os.path.join(folder, "watch"), "a")  # noqa: SIM115
    fcntl.flock(watch, fcntl.LOCK_EX)
    for name, place in request["places"]:
        path = os.path.join(folder, place)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        put(os.path.join(request["folder"], "files", name), path)
    with open(os.path.join(folder, "job.json"), "w") as file:
        json.dump(request["job"], file)
    touch(os.path.join(folder, "asked"))
    if os.fork() == 0:
        try:
            os.setsid()
            if os.fork() == 0:
                nothing = os.open(os.devnull, os.O_RDWR)
                for descriptor in (0, 1, 2):
                    os.dup2(nothing, descriptor)
                supervise(request, folder)
        finally:
            os._exit(0)
    os.wait()


def put(file: str, path: str) -> None:
    """A hard link: onnxruntime refuses external weights that are links to another folder."""
    try:
        os.link(file, path)
    except OSError:
        shutil.copyfile(file, path)


def supervise(request: Words, folder: str) -> None:
    """Run the job in its turn, say how it ended, and remove the folder when it is not wanted any more."""
    try:
        with open(lock_file()) as lock:
            kind = fcntl.LOCK_EX if request["alone"] else fcntl.LOCK_SH
            while not locked(lock, kind):
                touch(os.path.join(folder, "waiting"))
                if unwanted(request, folder):
                    return
                time.sleep(STEP_SECONDS)
            save(folder, "ended.json", run(request, folder, lock))
        while not unwanted(request, folder):
            time.sleep(STEP_SECONDS)
    except OSError as error:
        save(folder, "ended.json", {"code": 1, "said": str(error)})
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(request: Words, folder: str, lock: IO[str]) -> Words:
    """How the runner ended: {"code", "said": its last line, "hung": whether its time was up}."""
    end = time.monotonic() + request["seconds"]
    command = [request["python"] or sys.executable, "-I", "runner.pyz", "job.json", "result.json"]
    with open(os.path.join(folder, "said"), "w+") as said:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,
            pass_fds=(lock.fileno(),),  # while anything of it lives, no other one is timed
        )
        hung = False
        while process.poll() is None and not hung and not unwanted(request, folder):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, min(STEP_SECONDS, end - time.monotonic())))
            hung = process.poll() is None and time.monotonic() >= end
        stop(process)
        said.seek(0)
        return {"code": process.returncode, "said": last_line(said.read()), "hung": hung}


def stop(process: subprocess.Popen[bytes]) -> None:
    """The runner ends its workers when it is interrupted."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(3)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def unwanted(request: Words, folder: str) -> bool:
    """Told to end, or not asked for within the time that a line may be down."""
    try:
        asked = os.path.getmtime(os.path.join(folder, "asked"))
    except OSError:
        return True  # somebody has removed the folder
    return os.path.exists(os.path.join(folder, "stop")) or time.time() - asked > request["lease_seconds"]


def wait(folder: str) -> Words | None:
    """How the job ended; says when it waits for its turn. None where nobody reads it any more.

    When the line breaks both ends of it close. When the one who asks has died only stdin does: then the job
    is told to end.
    """
    told = False
    while True:
        ended = os.path.join(folder, "ended.json")
        if os.path.exists(ended):
            with open(ended) as file:
                found: Words = json.load(file)
            return found
        if not watched(folder):
            return {"lost": True}
        touch(os.path.join(folder, "asked"))
        if not told and os.path.exists(os.path.join(folder, "waiting")):
            told = True
            print(json.dumps({"waiting": lock_file()}), flush=True)
        readable, _, _ = select.select([0], [], [], STEP_SECONDS)
        if readable and not os.read(0, 1):
            time.sleep(2 * STEP_SECONDS)
            if line_holds():
                touch(os.path.join(folder, "stop"))
            return None


def line_holds() -> bool:
    poll = select.poll()
    poll.register(1, 0)
    return not any(events & (select.POLLERR | select.POLLHUP | select.POLLNVAL) for _, events in poll.poll(0))


def end(request: Words) -> Words:
    """End the job, if it runs, and leave nothing of it."""
    folder = job_folder(request)
    if os.path.isdir(folder):
        with contextlib.suppress(FileNotFoundError):
            touch(os.path.join(folder, "stop"))
        for _ in range(50):
            if not watched(folder):
                break
            time.sleep(STEP_SECONDS / 2)
        shutil.rmtree(folder, ignore_errors=True)
    return {}


# ---------------------------------------------------------------- small parts


def job_folder(request: Words) -> str:
    return os.path.join(request["folder"], "jobs", request["id"])


def watched(folder: str) -> bool:
    """Whether the process that watches a job lives."""
    try:
        with open(os.path.join(folder, "watch")) as watch:
            return not locked(watch, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


def locked(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock_file() -> str:
    """One for all users of this machine, whatever their TMPDIR, who need not be able to write it."""
    path = os.path.join("/tmp" if os.path.isdir("/tmp") else tempfile.gettempdir(), "compress-target.lock")
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o644))
    return path


def touch(path: str) -> None:
    with open(path, "a"):
        os.utime(path)


def save(folder: str, name: str, content: Words) -> None:
    with contextlib.suppress(FileNotFoundError):  # somebody has removed the folder
        with open(os.path.join(folder, name + ".part"), "w") as file:
            json.dump(content, file)
        os.replace(os.path.join(folder, name + ".part"), os.path.join(folder, name))


def environment() -> dict[str, str]:
    """Variables such as OMP_NUM_THREADS change how fast a library runs."""
    return {name: os.environ[name] for name in KEPT if name in os.environ}


def last_line(text: str) -> str:
    return "".join(text.strip().splitlines()[-1:])


DO: dict[str, Callable[[Words], Words | None]] = {
    each.__name__: each for each in (have, receive, facts, venv, job, end)
}


def main() -> None:
    request = json.loads(sys.stdin.buffer.readline())
    request["folder"] = os.path.join(os.path.expanduser("~"), os.path.expanduser(request["folder"]))
    print(MARK, flush=True)
    try:
        reply = DO[request["do"]](request)
    except OSError as error:
        reply = {"error": str(error), "errno": errno.errorcode.get(error.errno or 0, "")}
    if reply is not None:
        print(json.dumps(reply), flush=True)
