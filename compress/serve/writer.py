"""One model that writes one text at a time, a piece of it with each token."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from compress.errors import CompressError, ConfigError
from compress.serve.characters import Characters
from compress.serve.sampling import choose
from compress.serve.shipped import Shipped
from compress.serve.stop_texts import StopTexts
from compress.tasks.language_modeling.generation import continuation, shared_prefix


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """How a text goes on, and where it ends at the latest."""

    max_new_tokens: int | None = None  # None: until the context is full
    temperature: float = 0.0  # 0: always the most likely token
    top_p: float = 1.0  # sample from the most likely tokens that together have this probability
    seed: int | None = None  # None: another one each time
    stop: tuple[str, ...] = ()  # texts that end it, none of them empty


class PromptTooLong(ConfigError):
    pass


class Writer:
    """Writes after prompts. What a prompt has in common with the text before is not read again."""

    def __init__(self, shipped: Shipped, context: int | None = None) -> None:
        """`context`: tokens of prompt and answer together, by default as many as the model knows."""
        self.shipped, self.context = shipped, min(context or shipped.context, shipped.context)
        self.decoder = shipped.open(self.context)
        self._ids: list[int] = []  # of the text that the cache has the beginning of

    def start(self, ids: Sequence[int], wanted: Wanted) -> "Writing":
        """A text that begins with these tokens; only the one that was started last may go on.

        Raises ConfigError for no tokens, PromptTooLong for more than the context.
        """
        self.check(ids)
        known = 0
        if self.shipped.anew is None:  # else what is cached may be rotated otherwise
            known = shared_prefix(self._ids[: self.decoder.past], ids[:-1])
        self.decoder.rewind(known)
        self._ids = list(ids)
        return Writing(self, self._ids, known, wanted)

    def check(self, ids: Sequence[int]) -> None:
        """Raise what `start` raises."""
        if not ids:
            raise ConfigError("the prompt is empty", allowed="one token or more")
        if len(ids) > self.context:
            raise PromptTooLong(
                "the prompt is longer than the model's context",
                found=f"{len(ids)} tokens",
                allowed=f"at most {self.context}",
            )

    def forget(self) -> None:
        """Read the next prompt as a whole."""
        self._ids = []


class Writing:
    """A text being written: iterate over its pieces, some of them empty, or ask for each by `step`."""

    def __init__(self, writer: Writer, ids: list[int], known: int, wanted: Wanted) -> None:
        shipped = writer.shipped
        self.writer, self._ids = writer, ids
        self.prompt_tokens, self.known_tokens = len(ids), known  # the latter were in the cache
        self.new_tokens = 0
        self.finish: str | None = None  # then stop, for an end that the model or a stop text made, or length
        fitting = writer.context - len(ids) + 1  # the last token is never read
        most = wanted.max_new_tokens
        self.limit = fitting if most is None else min(most, fitting)
        self.full = most is None or fitting < most  # whether the context ends it at the latest
        self._text, self._stops = Characters(shipped.decode, ids), StopTexts(wanted.stop)
        random = np.random.default_rng(wanted.seed)
        self._tokens = continuation(
            writer.decoder,
            ids,
            self.limit,
            lambda logits: choose(logits, wanted.temperature, wanted.top_p, random),
            shipped.anew,
        )

    def __iter__(self) -> Iterator[str]:
        while self.finish is None:
            yield self.step()

    def step(self) -> str:
        """The text that the next token makes certain; raises ModelError where the graph cannot be run."""
        try:
            token = next(self._tokens)
        except CompressError:
            self.writer.forget()  # part of it may be in the cache
            raise
        self._ids.append(token)
        self.new_tokens += 1
        if token in self.writer.shipped.ends:
            self.finish = "stop"
            return self._end()
        piece = self._stops.feed(self._text.feed(token))
        if self._stops.found:
            self.finish = "stop"
        elif self.new_tokens == self.limit:
            self.finish = "length"
            return piece + self._end()
        return piece

    def _end(self) -> str:
        last = self._stops.feed(self._text.rest())
        if self._stops.found:  # by what came last
            self.finish = "stop"
        return last + self._stops.rest()
