"""`compress generate ARTIFACT --prompt ...`: what the shipped language model writes, token by token."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from compress.config.checks import allowed_of, number
from compress.errors import ConfigError
from compress.serve.shipped import Shipped
from compress.serve.writer import Wanted, Writer


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to write. Raises ConfigError for a value out of range."""

    prompt: str
    max_new_tokens: int = number(128, 1, 2**31)
    temperature: float = number(0.0, 0.0, 100.0)  # 0: always the most likely token
    # sample from the most likely tokens that together have this probability
    top_p: float = number(1.0, 1e-6, 1.0)
    seed: int = number(0, 0, 2**63)
    chat: bool = False  # the prompt is what a user says to an assistant

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise ConfigError("the prompt is empty", next='--prompt "Once upon a time"')
        for item in fields(self):
            if allowed := allowed_of(Request, item.name):
                allowed.check(f"--{item.name.replace('_', '-')}", getattr(self, item.name))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Text goes to stdout as it is made, tokens a second to stderr."
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--max-new-tokens", type=int, default=Request.max_new_tokens)
    parser.add_argument(
        "--temperature", type=float, default=Request.temperature, help="0: always the most likely token"
    )
    parser.add_argument(
        "--top-p", type=float, default=Request.top_p, help="probability of the tokens to sample from"
    )
    parser.add_argument("--seed", type=int, default=Request.seed)
    parser.add_argument("--chat", action="store_true", help="put the prompt into the model's chat template")


def run(args: argparse.Namespace, rest: Sequence[str]) -> None:
    print_text(args.artifact, Request(**{item.name: getattr(args, item.name) for item in fields(Request)}))


@dataclass(frozen=True, kw_only=True)
class Timing:
    prompt_tokens: int
    new_tokens: int
    first_seconds: float  # from the prompt to the first token
    rest_seconds: float  # of all tokens after the first
    full: bool  # whether the context ended it

    def text(self) -> str:
        sentence = f"{self.new_tokens} tokens after a prompt of {self.prompt_tokens}; "
        sentence += f"time to first token {1e3 * self.first_seconds:.0f} ms"
        if self.new_tokens > 1:
            sentence += f", then {(self.new_tokens - 1) / self.rest_seconds:.1f} tokens/s"
        return sentence + ("; the model's context is full" if self.full else "")


def generate(artifact: Path, request: Request, write: Callable[[str], object]) -> Timing:
    """Have the model in `artifact` go on after the prompt; every piece of text goes to `write` at once.

    Raises ArtifactError for a damaged artifact or one of another kind, ConfigError for a prompt that is
    longer than the model's context.
    """
    shipped = Shipped(artifact)
    if request.chat:
        ids = shipped.dialogue([{"role": "user", "content": request.prompt}])
    else:
        ids = shipped.encode(request.prompt)
    writer = Writer(shipped, len(ids) + request.max_new_tokens)
    settings = Wanted(
        max_new_tokens=request.max_new_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        seed=request.seed,
    )
    writing = writer.start(ids, settings)
    clock = [time.perf_counter()]
    for piece in writing:
        clock.append(time.perf_counter())
        if piece:
            write(piece)
    return Timing(
        prompt_tokens=len(ids),
        new_tokens=writing.new_tokens,
        first_seconds=clock[1] - clock[0],
        rest_seconds=clock[-1] - clock[1],
        full=writing.full and writing.new_tokens == writing.limit,
    )


def print_text(artifact: Path, request: Request) -> None:
    """The text to stdout as it comes, how fast it came to stderr."""

    def write(piece: str) -> None:
        sys.stdout.write(piece)
        sys.stdout.flush()

    timing = generate(artifact, request, write)
    write("\n")
    print(timing.text(), file=sys.stderr)
