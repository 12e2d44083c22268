"""Labelled text out of a MediaWiki dump: what its links and its paragraphs tell.

Mentions: a sentence's words, tagged B-MENTION and I-MENTION where they are the anchor of a link. An article
links a name once, so that sentences without a link are left out, and some mentions have no tag.
Passages: a sentence of the first half of a paragraph asks for the second half.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from compress.config.records import RecordFormat, RecordSet
from compress.data.readers import Row, Table
from compress.data.retrieval import asked
from compress.data.text import ANCHOR, Document, read_articles, split_sentences

_OPEN, _CLOSE = ANCHOR
_TRAIL = re.compile(rf"{_CLOSE}([^\W\d_]+)")  # [[cat]]s links "cats"
_WORD = re.compile(r"\w+(?:[.'’-]\w+)*|[^\w\s]")
_SENTENCE = (5, 60)  # words


def open_table(path: Path, config: RecordSet, kind: RecordFormat) -> Table:
    mentions = kind is RecordFormat.wikipedia_mentions
    columns = ("tokens", "tags") if mentions else ("query", "positive")

    def rows() -> Iterator[tuple[int, Row]]:
        number = 0
        for document in read_articles(path, anchors=mentions):
            for found in tagged(document) if mentions else asked(document):
                number += 1
                yield number, {**dict(zip(columns, found, strict=True)), "document": document.title}

    return Table(name=path.name, columns=(*columns, "document"), rows=rows)


def tagged(document: Document) -> Iterator[tuple[list[str], list[str]]]:
    """Words and tags of every sentence that has a link."""
    for paragraph in document.text.split("\n"):
        for sentence in split_sentences(_TRAIL.sub(rf"\1{_CLOSE}", paragraph)):
            parts = re.split(f"([{_OPEN}{_CLOSE}])", sentence)
            marks = parts[1::2]
            if not marks or marks != [_OPEN, _CLOSE] * (len(marks) // 2):
                continue  # none, or one that reaches into another sentence
            tokens: list[str] = []
            tags: list[str] = []
            for place, part in enumerate(parts[::2]):
                found = _WORD.findall(part)
                tokens += found
                inside = ["B-MENTION", *["I-MENTION"] * (len(found) - 1)][: len(found)]
                tags += inside if place % 2 else ["O"] * len(found)
            if _SENTENCE[0] <= len(tokens) <= _SENTENCE[1] and "B-MENTION" in tags:
                yield tokens, tags
