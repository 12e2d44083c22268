"""Who may use this machine's cores (many stages may compute at once, a benchmark runs alone), and the memory
that a process of ours took."""

import ctypes
import gc
import getpass
import logging
import mmap
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import ReadWriteLock, Timeout

log = logging.getLogger(__name__)
_MAPPED = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ (\d+)", re.MULTILINE)
_DONTNEED = 4  # of madvise(2)
SILENT_SECONDS = 5.0  # of waiting for the machine


@contextmanager
def cores(alone: bool) -> Iterator[None]:
    """Hold the machine with others, or alone: then no other stage of any of our processes computes.

    The lock lies on this machine, not in the cache, which several machines may share. A killed process
    lets go of it. Who waits long says so in the log and on the screen. Jobs of a cluster that share a machine
    need the same TMPDIR.
    """
    folder = Path(tempfile.gettempdir()) / f"compress-{getpass.getuser()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    lock = ReadWriteLock(folder / "cores.db")
    hold = lock.write_lock if alone else lock.read_lock
    with ExitStack() as held:
        try:
            held.enter_context(hold(timeout=SILENT_SECONDS))
        except Timeout:
            log.warning("waiting for another process of ours that computes or times models here (%s)", folder)
            held.enter_context(hold())
        yield


def give_back() -> None:
    """What was freed, to the system: glibc keeps a gigabyte of a language model until it is asked."""
    gc.collect()
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def forget_mapped(address: int, size: int) -> None:
    """Let go of what was read of a file that is mapped there (Linux); where nothing is, or no file, it stays.

    A mapped page counts as this process's until the system needs it; it is read again where it is asked for.
    Nobody may have written to it.
    """
    page = mmap.PAGESIZE
    start, end = -(-address // page) * page, (address + size) // page * page
    with suppress(OSError, AttributeError, TypeError):
        mapped = any(
            int(first, 16) <= start and end <= int(last, 16) and int(inode)
            for first, last, inode in _MAPPED.findall(Path("/proc/self/maps").read_text())
        )
        if mapped and start < end:
            ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _DONTNEED)


def forget_peak() -> None:
    """Have `peak_memory` count from now on only (Linux: proc_pid_clear_refs(5)), without what is free."""
    give_back()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int | None:
    """Most bytes that this process held in memory, files mapped into it included, since `forget_peak`.

    None where the system does not tell, or only tells of the whole life of the process.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else None
