"""Entities in tagged words, and how many two taggings share: the definition of conlleval and seqeval."""

import re
from collections.abc import Iterable, Sequence

import numpy as np

from compress.metrics.confusion import ratio_f1
from compress.metrics.influence import Statistic

Entity = tuple[str, int, int]  # type, first word, last word
_PREFIXED = re.compile(r"([BIESLUM])(?:-(.*))?", re.DOTALL)
_OTHER_LETTERS = {"L": "E", "U": "S", "M": "I"}  # of BILOU and BMES


def entities(tags: Sequence[str]) -> list[Entity]:
    """The entities of a sentence, from tags in BIO, IOB, BIOES or BILOU.

    An entity begins where its tag says so, or where the type changes; one that begins with I counts
    (conlleval, Tjong Kim Sang & Buchholz 2000; seqeval's default mode). Tags without letters in front, such
    as PER, are of one entity as long as they stay the same.
    """
    found: list[Entity] = []
    begin, before, kind = 0, "O", ""
    for place, (letter, of) in enumerate((*map(_parts, tags), ("O", ""))):
        ends = before in "ES" or (before in "BI" and letter in "BSO") or (before != "O" and of != kind)
        if before != "O" and ends:
            found.append((kind, begin, place - 1))
        starts = letter in "BS" or (before in "ESO" and letter in "EI") or (letter != "O" and of != kind)
        if letter != "O" and starts:
            begin = place
        before, kind = letter, of
    return found


def _parts(tag: str) -> tuple[str, str]:
    """Letter of B, I, E, S or O, and type."""
    if tag == "O":
        return "O", ""
    if (found := _PREFIXED.fullmatch(tag)) is None:
        return "I", tag
    return _OTHER_LETTERS.get(found[1], found[1]), found[2] or "_"


def entity_counts(answers: Iterable[Sequence[str]], truth: Iterable[Sequence[str]]) -> np.ndarray:
    """int64 [sentences, 3]: entities that both have, those that `answers` have, those that `truth` has.

    They are the same where type and both ends are. Raises ValueError for other numbers of sentences.
    """
    rows = []
    for said, true in zip(answers, truth, strict=True):
        ours, theirs = set(entities(said)), set(entities(true))
        rows.append((len(ours & theirs), len(ours), len(theirs)))
    return np.array(rows, np.int64).reshape(-1, 3)


def entity_f1(counts: np.ndarray) -> Statistic:
    """Micro F1 of counts [sentences, 3]: precision and recall over all entities of all sentences.

    Sentences are the examples, whose entities depend on each other.
    """
    return ratio_f1(counts[:, 0], counts[:, 1], counts[:, 2])
