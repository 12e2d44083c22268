"""Libraries that print."""

import contextlib
import io
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def printed_to(log: logging.Logger) -> Iterator[None]:
    """Let what is printed meanwhile go to the log, for debugging."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            yield
    finally:
        log.debug("%s", said.getvalue())
