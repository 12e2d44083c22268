"""`compress serve ARTIFACT`: the shipped language model behind an OpenAI-compatible endpoint."""

import argparse
import logging
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from compress.config.checks import Range
from compress.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "/v1/models, /v1/completions and /v1/chat/completions, for clients of OpenAI's API. One text is "
        "written at a time; a line a request goes to stderr. Ctrl-C stops it."
    )
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--host", default="127.0.0.1", help="127.0.0.1: this machine alone")
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free")
    parser.add_argument("--queue", type=int, default=16, help="requests that may wait; more are answered 429")
    parser.add_argument(
        "--context", type=int, help="tokens of prompt and answer together; the model's, if not given"
    )


def run(args: argparse.Namespace, rest: Sequence[str]) -> None:
    Range(0, 65535).check("--port", args.port)
    Range(0, 2**31).check("--queue", args.queue)
    if args.context is not None:
        Range(2, 2**31).check("--context", args.context)
    with listen(args.host, args.port) as place:  # before the model is opened, which takes seconds
        serve(args.artifact, place, args.queue, args.context)


def serve(artifact: Path, place: socket.socket, queue: int, context: int | None = None) -> None:
    """Answer at a bound socket until SIGINT or SIGTERM comes; then texts have five seconds to end."""
    import uvicorn

    from compress.serve.server import Service, application
    from compress.serve.shipped import Shipped
    from compress.serve.writer import Writer

    shipped = Shipped(artifact)
    app = application(Service(Writer(shipped, context), queue))
    print_lines(logging.getLogger("compress.serve"))
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", ws="none", timeout_graceful_shutdown=5
    )
    signal.signal(signal.SIGTERM, _stop)
    host, port = place.getsockname()[:2]
    kinds = "" if shipped.chats else " (it has no chat template: completions alone)"
    print(
        f"{shipped.name} at http://{f'[{host}]' if ':' in host else host}:{port}/v1{kinds}", file=sys.stderr
    )
    try:
        uvicorn.Server(config).run(sockets=[place])
    except KeyboardInterrupt:  # uvicorn raises the signal again when it is done
        print("stopped", file=sys.stderr)


def listen(host: str, port: int) -> socket.socket:
    """A socket bound there; raises ConfigError where that cannot be."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        place = socket.socket(family, kind, protocol)
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just left is free
        try:
            place.bind(address)
            place.listen()
        except OSError:
            place.close()
            raise
    except OSError as error:
        raise ConfigError(
            f"cannot listen at {host}, port {port}",
            found=error.strerror or error,
            allowed="an address of this machine and a port that no other server has",
            next=f"--port {port + 1 if 0 < port < 65535 else 8000}, or --port 0 for any that is free",
        ) from None
    return place


def print_lines(logger: logging.Logger) -> None:
    """A line on stderr for each message."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _stop(number: int, frame: object) -> None:
    raise KeyboardInterrupt
