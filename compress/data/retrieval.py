"""Passages of held-out documents, each asked for by sentences that stand before it.

    retrieval/<split>.json      {"queries", "answers", "passages", "documents"}

As in the inverse cloze task (Lee, Chang & Toutanova 2019): each sentence of the first half of a paragraph
asks for the second half, among those of all documents of the split. Unlike human judgements there are
thousands.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.data.text import Document, split_sentences, text_key, words
from compress.errors import DataError

_QUERY = (5, 60)  # words
_PASSAGE = (12, 200)


@dataclass(frozen=True, kw_only=True)
class RetrievalSet:
    queries: tuple[str, ...]
    answers: tuple[int, ...]  # of each query the place of the passage that answers it
    passages: tuple[str, ...]
    documents: tuple[int, ...]  # of each query
    fingerprint: str


def asked(document: Document) -> Iterator[tuple[str, str]]:
    """Sentence of the first half of a long paragraph, and its second half."""
    for paragraph in document.text.split("\n"):
        sentences = split_sentences(paragraph)
        half = -(-len(sentences) // 2)
        passage = " ".join(sentences[half:])
        if _within(passage, _PASSAGE):
            yield from ((each, passage) for each in sentences[:half] if _within(each, _QUERY))


def _within(text: str, limits: tuple[int, int]) -> bool:
    return limits[0] <= words(text) <= limits[1]


def hold_out(
    documents: Sequence[Document], order: Sequence[int], counts: dict[str, int]
) -> dict[str, list[tuple[str, str, int]]]:
    """Split -> query, passage and document of as many documents as it is to have, in `order`.

    Raises DataError where there are fewer documents with passages. What repeats another is left out.
    """
    found: dict[str, list[tuple[str, str, int]]] = {}
    seen: set[str] = set()
    passages: dict[str, int] = {}  # key -> document
    waiting = list(order)
    for split, count in counts.items():
        found[split] = []
        taken = 0
        while waiting and taken < count:
            number = waiting.pop(0)
            new = []
            for query, passage in asked(documents[number]):
                owner = passages.setdefault(text_key(passage), number)
                if owner == number and (key := text_key(query)) not in seen:
                    new.append((query, passage, number))
                    seen.add(key)
            found[split] += new
            taken += bool(new)
        if taken < count:
            raise DataError(
                "too few documents with passages",
                found=f"{taken} for {split}",
                allowed=f"data.retrieval.{split}={count}",
                next=f"lower data.retrieval.{split}",
            )
    return {split: rows for split, rows in found.items() if counts[split]}


def sentences_of(found: dict[str, list[tuple[str, str, int]]]) -> set[str]:
    """Keys of all that the sets read, which no other split may have."""
    texts = (text for rows in found.values() for query, passage, _ in rows for text in (query, passage))
    return {text_key(part) for text in texts for part in (text, *split_sentences(text))}


def write_sets(found: dict[str, list[tuple[str, str, int]]], out: Path) -> dict[str, Any]:
    """Writes the files; returns what the manifest says of each."""
    counts = {}
    for split, rows in found.items():
        (out / "retrieval").mkdir(exist_ok=True)
        place = {passage: i for i, passage in enumerate(dict.fromkeys(passage for _, passage, _ in rows))}
        content = {
            "queries": [query for query, _, _ in rows],
            "answers": [place[passage] for _, passage, _ in rows],
            "passages": list(place),
            "documents": [number for _, _, number in rows],
        }
        data = (json.dumps(content, ensure_ascii=False) + "\n").encode()
        (out / "retrieval" / f"{split}.json").write_bytes(data)
        fingerprint = hashlib.sha256(data).hexdigest()
        counts[split] = {
            "examples": len(rows),
            "passages": len(place),
            "documents": len({number for _, _, number in rows}),
            "fingerprint": fingerprint,
        }
    return counts


def load_set(content: str, fingerprint: str) -> RetrievalSet:
    found = {name: tuple(each) for name, each in json.loads(content).items()}
    return RetrievalSet(**found, fingerprint=fingerprint)
