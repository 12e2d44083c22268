"""Texts that end an answer and are no part of it."""

from collections.abc import Sequence


class StopTexts:
    """Pieces of a text go in as they come; what surely stands before any of the stop texts comes out."""

    def __init__(self, stops: Sequence[str]) -> None:
        """None of `stops` is empty."""
        self.stops = tuple(stops)
        self.found = False  # one of them; nothing more comes out
        self._held = ""

    def feed(self, piece: str) -> str:
        """What can be shown now; the end of the text is held back while it may begin a stop text."""
        if self.found:
            return ""
        text = self._held + piece
        places = [place for stop in self.stops if (place := text.find(stop)) >= 0]
        if places:
            self.found, self._held = True, ""
            return text[: min(places)]
        held = max((_begun(text, stop) for stop in self.stops), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def rest(self) -> str:
        """What was held back, of a text that has ended."""
        held, self._held = self._held, ""
        return held


def _begun(text: str, stop: str) -> int:
    """Characters at the end of `text` that are the beginning of `stop`, the most that are, but not all."""
    most = min(len(text), len(stop) - 1)
    return next((count for count in range(most, 0, -1) if text.endswith(stop[:count])), 0)
