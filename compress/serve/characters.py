"""Tokens to text as they come: a token may be part of a character, and read otherwise at a beginning."""

from collections.abc import Callable, Sequence

_NO_CHARACTER = "\N{REPLACEMENT CHARACTER}"  # what decoders make of bytes that are no whole character
_BEFORE = 6  # tokens that the first new one is read behind


class Characters:
    """Whole characters of tokens that follow others."""

    def __init__(self, decode: Callable[[Sequence[int]], str], before: Sequence[int] = ()) -> None:
        """`decode` gives the text of tokens; `before` are those in front, whose text does not come out."""
        self.decode = decode
        self._tokens = list(before[-_BEFORE:])
        self._told = len(self._tokens)  # tokens whose text has come out
        self._start = 0  # what follows is decoded from this token on

    def feed(self, token: int) -> str:
        """The text that this token makes certain; a character comes with its last byte."""
        self._tokens.append(token)
        text = self._new()
        if not text or text.endswith(_NO_CHARACTER):
            return ""
        self._start, self._told = self._told, len(self._tokens)
        if self._start > 2 * _BEFORE:  # a long text is not kept
            del self._tokens[: self._start]
            self._start, self._told = 0, self._told - self._start
        return text

    def rest(self) -> str:
        """What is left of a text that has ended, without a character that is not whole."""
        text = self._new().rstrip(_NO_CHARACTER)
        self._told = self._start = len(self._tokens)
        return text

    def _new(self) -> str:
        known = self.decode(self._tokens[self._start : self._told])
        return self.decode(self._tokens[self._start :])[len(known) :]
