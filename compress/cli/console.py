"""The screen that all commands write to."""

import unicodedata

from rich.console import Console
from rich.markup import escape

console = Console()


def foreign(text: str) -> str:
    """A text that others wrote, for `console.print`: no mark-up, nothing that steers a terminal."""
    return escape(harmless(text))


def harmless(text: str) -> str:
    """Lines without what steers a terminal, turns the direction of writing or has no place in XML."""
    return "".join(c if c in "\n\t" or unicodedata.category(c)[0] != "C" else "?" for c in text)
