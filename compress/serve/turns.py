"""One text is written at a time; who asks meanwhile waits in a line that has an end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from compress.serve.refused import Refused


class Turns:
    def __init__(self, waiting: int) -> None:
        """`waiting`: how many may wait beside the one whose turn it is."""
        self.waiting = waiting
        self.inside = 0
        self._lock = anyio.Lock()  # hands over in the order of asking

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Wait for a turn and have it; who is cancelled leaves. Raises Refused where the line is full."""
        if self.inside > self.waiting:
            message = (
                f"{self.inside} requests are being answered or waiting, which is the most: try again later"
            )
            raise Refused(429, message, code="queue_full")
        self.inside += 1
        try:
            async with self._lock:
                yield
        finally:
            self.inside -= 1
