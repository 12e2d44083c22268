"""Whole documents to splits: pure, and the same for the same seed and documents."""

import hashlib
import random
from collections import Counter
from collections.abc import Iterator, Sequence

from compress.config.data import TextData
from compress.data.text import Document, passages, split_sentences, text_key, words
from compress.errors import DataError

_MAX_SHARE = 10  # no document gives more than a tenth of an evaluated split


def order_key(seed: int, document: Document) -> bytes:
    """By which documents come: a hash of the seed and their content."""
    return hashlib.sha256(f"{seed}\n{document.title}\n{document.text}".encode()).digest()


Examples = list[tuple[str, int]]  # text, number of its document


def split_documents(
    config: TextData, documents: Sequence[Document], of_test: Sequence[int], judged: set[str]
) -> tuple[dict[str, Examples], Counter[str]]:
    """Share the documents out; also how many sentences each split lost to an earlier one.

    Documents come in the order of a hash of the seed and their content. Test, select and calibration take
    of the test corpus as many as they need, with at most a tenth of the split from one of them; train gets
    the rest of all corpora. `judged` are keys of sentences that no split may have.
    """
    order = sorted(range(len(documents)), key=lambda i: (order_key(config.seed, documents[i]), i))
    eligible = set(of_test)
    seen, dropped = set(judged), Counter[str]()
    chosen: dict[str, Examples] = {}
    used: set[int] = set()
    for name in ("test", "select", "calibration"):
        asked = getattr(config, name)
        free = [i for i in order if i in eligible and i not in used]
        chosen[name], taken = _take_sentences(config, documents, free, asked, seen, dropped, name)
        if len(chosen[name]) < asked:
            raise _too_few(name, asked, len(chosen[name]), config, f"the corpus {config.test_corpus!r}")
        used |= taken
        seen |= {text_key(text) for text, _ in chosen[name]}
    chosen["train"] = _take_passages(config, documents, [i for i in order if i not in used], seen, dropped)
    if len(chosen["train"]) < max(config.train, 1):
        raise _too_few("train", config.train, len(chosen["train"]), config, "all corpora")
    for examples in chosen.values():
        random.Random(config.seed).shuffle(examples)  # so that any prefix of a split is of many documents
    if config.train:
        chosen["train"] = chosen["train"][: config.train]
    return chosen, dropped


def _sentences(document: Document) -> Iterator[str]:
    for paragraph in document.text.split("\n"):
        yield from split_sentences(paragraph)


def _take_sentences(
    config: TextData,
    documents: Sequence[Document],
    free: Sequence[int],
    asked: int,
    seen: set[str],
    dropped: Counter[str],
    name: str,
) -> tuple[Examples, set[int]]:
    """Single sentences of the free documents until there are `asked`; and which documents were touched."""
    share = max(1, -(-asked // _MAX_SHARE))
    found: Examples = []
    taken: set[int] = set()
    own: set[str] = set()
    for i in free:
        if len(found) == asked:
            break
        fitting = [s for s in _sentences(documents[i]) if config.min_words <= words(s) <= config.max_words]
        new = {key: s for s in fitting if (key := text_key(s)) not in seen and key not in own}
        dropped[name] += len(fitting) - len(new)
        sample = random.Random(order_key(config.seed, documents[i])).sample(
            list(new), min(share, len(new), asked - len(found))
        )
        found += [(new[key], i) for key in sample]
        own |= set(sample)
        taken.add(i)
    return found, taken


def _take_passages(
    config: TextData,
    documents: Sequence[Document],
    free: Sequence[int],
    seen: set[str],
    dropped: Counter[str],
) -> Examples:
    """Passages of one to many sentences; their target lengths are log-uniform in the allowed range."""
    found: Examples = []
    own: set[str] = set()
    for i in free:
        everything = list(_sentences(documents[i]))
        allowed = [sentence for sentence in everything if text_key(sentence) not in seen]
        dropped["train"] += len(everything) - len(allowed)
        generator = random.Random(order_key(config.seed, documents[i]))
        for passage in passages(allowed, _targets(config, generator), config.max_words):
            key = text_key(passage)
            if words(passage) >= config.min_words and key not in own and key not in seen:
                found.append((passage, i))
                own.add(key)
    return found


def _targets(config: TextData, generator: random.Random) -> Iterator[int]:
    low, high = config.min_words, max(config.min_words, config.max_words)
    while True:
        yield round(low * (high / low) ** generator.random())


def _too_few(name: str, asked: int, found: int, config: TextData, where: str) -> DataError:
    return DataError(
        f"too little text for the split {name}",
        found=f"{found} examples of {config.min_words} to {config.max_words} words in {where}",
        allowed=f"at least {asked or 1}",
        next=f"lower data.{name if asked else 'calibration, data.select or data.test'}"
        + (" (0 takes all there is)" if name == "train" and asked else "")
        + ", lower data.min_words, or add text",
    )
