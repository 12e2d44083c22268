"""An example of labelled text, of whatever task: what a task does not read stays empty."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Record:
    """One example. Without labels, words, candidates and answers it is text to calibrate or distil with.

    `text` is a text, a query or a question; `pair` the text that is read with it, a question's context.
    """

    text: str = ""
    pair: str | None = None
    labels: tuple[float, ...] = ()  # (index of the class,), 0 or 1 for every class, or (value,)
    words: tuple[str, ...] = ()
    tags: tuple[int, ...] = ()  # index of the tag of every word
    candidates: tuple[str, ...] = ()  # passages that are ranked for the query
    relevance: tuple[float, ...] = ()  # gain of every candidate, 0 where it answers nothing
    answers: tuple[tuple[int, str], ...] = ()  # where each begins in the context, in characters, and its text
    group: str = ""  # examples of one group stay in one split
    line: int = 0  # of the file that it was read from, counted from 1; 0: of none
