"""`compress chat ARTIFACT`: a conversation with the shipped language model, typed or through a pipe."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TextIO

from compress.config.checks import allowed_of, number
from compress.errors import ArtifactError
from compress.serve.shipped import Shipped
from compress.serve.writer import PromptTooLong, Wanted, Writer

LEAVE, ANEW = "/exit", "/new"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the model answers. Raises ConfigError for a value out of range."""

    system: str = ""  # what the model is told first; empty: nothing
    max_new_tokens: int = number(1024, 1, 2**31)  # of an answer
    temperature: float = number(0.0, 0.0, 100.0)  # 0: always the most likely token
    top_p: float = number(1.0, 1e-6, 1.0)
    seed: int = number(0, 0, 2**63)  # of the first answer; each has its own

    def __post_init__(self) -> None:
        for item in fields(self):
            if allowed := allowed_of(Settings, item.name):
                allowed.check(f"--{item.name.replace('_', '-')}", getattr(self, item.name))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        f"A line is what you say; the answer is written as it is made. {ANEW} begins another conversation, "
        f"{LEAVE} or Ctrl-D ends it, Ctrl-C an answer."
    )
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--system", default=Settings.system, help="what the model is told first")
    parser.add_argument("--max-new-tokens", type=int, default=Settings.max_new_tokens, help="of an answer")
    parser.add_argument(
        "--temperature", type=float, default=Settings.temperature, help="0: always the most likely token"
    )
    parser.add_argument(
        "--top-p", type=float, default=Settings.top_p, help="probability of the tokens to sample from"
    )
    parser.add_argument("--seed", type=int, default=Settings.seed)


def run(args: argparse.Namespace, rest: Sequence[str]) -> None:
    settings = Settings(**{item.name: getattr(args, item.name) for item in fields(Settings)})
    shipped = Shipped(args.artifact)
    if not shipped.chats:
        raise ArtifactError(
            "the model has no chat template, and does not chat",
            found=f"none in {args.artifact}",
            next='compress generate ARTIFACT --prompt "Once upon a time"',
        )
    converse(Writer(shipped), settings, lines(sys.stdin), sys.stdout)


def lines(source: TextIO) -> Iterable[str]:
    """What is said, line by line; a terminal is asked for each."""
    if not source.isatty():
        yield from source
        return
    import readline  # noqa: F401 - lets input() edit lines and remember them

    while True:
        try:
            yield input("> ")
        except EOFError:
            print()
            return


def converse(writer: Writer, settings: Settings, said: Iterable[str], out: TextIO) -> None:
    """Answer each line on `out` as the conversation before has it, a blank one not at all."""
    beginning = [{"role": "system", "content": settings.system}] if settings.system else []
    messages = list(beginning)
    for turn, line in enumerate(said):
        if (words := line.strip()) == LEAVE:
            return
        if words == ANEW:
            messages = list(beginning)
        elif words:
            asked = [*messages, {"role": "user", "content": words}]
            wanted = Wanted(
                max_new_tokens=settings.max_new_tokens,
                temperature=settings.temperature,
                top_p=settings.top_p,
                seed=settings.seed + turn,
            )
            try:
                answer = _answer(writer, asked, wanted, out)
            except PromptTooLong as error:
                print(f"{error}\n  next:    {ANEW} begins another conversation", file=sys.stderr)
                continue
            messages = [*asked, {"role": "assistant", "content": answer}]


def _answer(writer: Writer, messages: Sequence[dict[str, str]], wanted: Wanted, out: TextIO) -> str:
    """The answer, or what there is of it when Ctrl-C ends it; on `out` as it comes."""
    answer = ""
    writing = writer.start(writer.shipped.dialogue(messages), wanted)
    try:
        for piece in writing:
            answer += piece
            out.write(piece)
            out.flush()
    except KeyboardInterrupt:
        writer.forget()  # the token that was being read may be in the cache
    out.write("\n")
    out.flush()
    if writing.full and writing.new_tokens == writing.limit:
        print(f"the model's context is full: {ANEW} begins another conversation", file=sys.stderr)
    return answer
