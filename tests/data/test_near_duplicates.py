"""Near-duplicates against every pair compared by hand-written sets."""

import random
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.data.near_duplicates import LIMIT, near_duplicates, nearest

SENTENCE = "The bridge over the river was opened to traffic in the spring of that year."


def jaccard(first: str, second: str) -> float:
    def shingles(text: str) -> set[str]:
        padded = " ".join(re.findall(r"\w+", text.lower())) + "____"
        return {padded[i : i + 5] for i in range(len(padded) - 4)}

    a, b = shingles(first), shingles(second)
    return len(a & b) / len(a | b)


def slowly(texts: list[str], others: list[str]) -> list[float]:
    every = [max((jaccard(text, other) for other in others), default=0.0) for text in texts]
    return [value if value >= LIMIT else 0.0 for value in every]


WORDS = st.sampled_from(["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "Zürich", "東京", "eta"])
PHRASES = st.lists(WORDS, min_size=6, max_size=10).map(" ".join)
EDITED = st.tuples(PHRASES, st.integers(0, 5), st.sampled_from(["", "x", " iota", "!"]))


@settings(max_examples=60, deadline=None)
@given(st.lists(EDITED, max_size=8), st.lists(PHRASES, max_size=8))
def test_it_is_what_comparing_every_pair_finds(edited: list[tuple[str, int, str]], others: list[str]) -> None:
    """Half of the texts are others with a letter or a word more, so that many lie about the limit."""
    texts = [text[: at * 3] + more + text[at * 3 :] for text, at, more in edited]
    texts += [other[: i * 2] + "x" + other[i * 2 :] for i, other in enumerate(others)]
    found = nearest(texts, others)
    assert [similarity for similarity, _ in found] == pytest.approx(slowly(texts, others))
    for text, (similarity, index) in zip(texts, found, strict=True):
        assert (index == -1) == (similarity == 0.0)
        if index >= 0:
            assert jaccard(text, others[index]) == pytest.approx(similarity)


def test_one_at_the_limit_is_found_by_the_last_shingle_that_is_looked_up() -> None:
    """60 of 75 shingles are shared, and the 15 others are in no other text: the rarest but for the 16th."""
    text = "".join(chr(ord("東") + i) for i in range(75))
    assert jaccard(text, text[15:]) == LIMIT
    assert nearest([text], [text[15:]]) == [(pytest.approx(LIMIT), 0)]
    assert nearest([text], [text[16:]]) == [(0.0, -1)]


def test_case_space_and_punctuation_do_not_count() -> None:
    other = "the BRIDGE over\tthe river, was opened to traffic -- in the spring of that year"
    assert nearest([SENTENCE], ["Something else altogether is written here.", other]) == [(1.0, 1)]


def test_short_and_empty_texts_are_no_duplicates() -> None:
    assert nearest(["He said so.", "", "東京"], ["He said so.", "", "東京"]) == [(0.0, -1)] * 3
    assert nearest([], ["a"]) == []
    assert nearest([SENTENCE], []) == [(0.0, -1)]


def test_examples_are_counted_and_the_most_alike_named() -> None:
    near, nearer = SENTENCE.replace("spring", "autumn"), SENTENCE.replace("that", "this")
    tested = {
        "test": [(SENTENCE,), ("A quiet village without any bridge at all lies to the north.",)],
        "pairs/judged": [(f"Once more. {near}", "word"), ("word", "other")],
    }
    seen = {"train": [f"It was cold. {near} Nobody came."], "select": [nearer], "calibration": ["Nothing."]}
    found = near_duplicates(tested, seen)
    assert (found["test"].examples, found["test"].share) == (1, 0.5)
    assert found["test"].similarity == pytest.approx(jaccard(SENTENCE, nearer))
    assert (found["test"].text, found["test"].other) == (SENTENCE, nearer)
    assert found["test"].other_split == "select"
    assert (found["pairs/judged"].examples, found["pairs/judged"].similarity) == (1, 1.0)
    assert found["pairs/judged"].other_split == "train"


def test_nothing_alike() -> None:
    seen = {"train": ["Nothing of the kind is to be seen."]}
    (found,) = near_duplicates({"test": [(SENTENCE,)]}, seen).values()
    assert (found.examples, found.share, found.similarity, found.other_split) == (0, 0.0, 0.0, "")


def test_long_texts_are_shortened() -> None:
    long = " ".join(f"word{i}" for i in range(60))
    (found,) = near_duplicates({"test": [(long,)]}, {"train": [long]}).values()
    assert found.similarity == 1.0
    assert len(found.text) == len(found.other) == 120


def test_forty_thousand_sentences_take_seconds() -> None:
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(3000)]
    others = [" ".join(rng.choices(words, k=20)) for _ in range(40_000)]
    texts = [other + " more" for other in others[:500]]
    start = time.process_time()
    found = nearest(texts, others)
    assert time.process_time() - start < 10
    assert [index for _, index in found] == list(range(500))
