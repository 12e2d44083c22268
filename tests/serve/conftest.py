"""Servers of tiny models, each in a thread of its own."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import uvicorn

from compress.cli.serve import listen
from compress.serve.server import Service, application
from compress.serve.shipped import Shipped
from compress.serve.writer import Writer


@contextmanager
def _serving(shipped: Shipped, queue: int = 16) -> Iterator[SimpleNamespace]:
    service = Service(Writer(shipped), queue)
    config = uvicorn.Config(
        application(service), log_config=None, access_log=False, lifespan="off", ws="none"
    )
    server, place = uvicorn.Server(config), listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, args=([place],))
    host, port = place.getsockname()
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield SimpleNamespace(url=f"http://{host}:{port}/v1", port=port, service=service, server=server)
    finally:
        server.should_exit = True
        thread.join(timeout=30)
    assert not thread.is_alive()


@pytest.fixture(scope="session")
def serving() -> Callable[..., object]:
    """`serving(shipped, queue)`: a context whose value has `url`, `port`, the server and its service."""
    return _serving
