"""Who may use this machine's cores: many stages may compute at once, a benchmark runs alone."""

import getpass
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import ReadWriteLock


@contextmanager
def cores(alone: bool) -> Iterator[None]:
    """Hold the machine with others, or alone: then no other stage of any of our processes computes.

    The lock lies on this machine, not in the cache, which several machines may share. A killed process
    lets go of it.
    """
    folder = Path(tempfile.gettempdir()) / f"compress-{getpass.getuser()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    lock = ReadWriteLock(folder / "cores.db")
    with lock.write_lock() if alone else lock.read_lock():
        yield
