"""Answers to questions beside those that people gave: exact match and F1 of SQuAD (Rajpurkar et al. 2016).

As its official script for version 2 computes them: case, punctuation, articles and white space do not count.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b", re.UNICODE)
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, golds: Sequence[str]) -> float:
    """1 where the answer is one of those given, which are the empty one where there is none; else 0."""
    return float(any(normalised(answer) == normalised(gold) for gold in golds or ("",)))


def f1(answer: str, golds: Sequence[str]) -> float:
    """The highest F1 of the words of the answer and of one that is given; 1 or 0 where either is empty."""
    return max(_f1(normalised(answer).split(), normalised(gold).split()) for gold in golds or ("",))


def _f1(said: list[str], gold: list[str]) -> float:
    if not said or not gold:
        return float(said == gold)
    shared = sum((Counter(said) & Counter(gold)).values())
    return 2 * shared / (len(said) + len(gold))
