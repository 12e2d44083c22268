"""What stands before a stop text comes out, as soon as it surely does."""

from itertools import pairwise

import pytest
from hypothesis import given, strategies

from compress.serve.stop_texts import StopTexts


@pytest.mark.parametrize(
    ("stops", "pieces", "shown"),
    [
        ([], ["a", "b"], ["a", "b", ""]),
        (["END"], ["an ", "E", "ND and more", "x"], ["an ", "", "", "", ""]),
        (["END"], ["an E", "Nd", "E"], ["an ", "ENd", "", "E"]),
        (["aab"], ["aaa", "ab"], ["a", "a", ""]),
        (["\n\n", "\nUser:"], ["hi\nUse", "r", ": x"], ["hi", "", "", ""]),
        (["later", "soon"], ["so later or soon"], ["so ", ""]),
        (["ab", "b"], ["xab"], ["x", ""]),
    ],
)
def test_pieces(stops, pieces, shown):
    texts = StopTexts(stops)
    found = [texts.feed(piece) for piece in pieces]
    assert [*found, texts.rest()] == shown
    assert texts.found is any(stop in "".join(pieces) for stop in stops)


@given(
    text=strategies.text("ab", max_size=30),
    stops=strategies.lists(strategies.text("ab", min_size=1, max_size=4), max_size=3),
    cuts=strategies.lists(strategies.integers(0, 30), max_size=8),
)
def test_however_a_text_is_cut_all_before_the_first_stop_text_comes_out(text, stops, cuts):
    places = [0, *sorted(cuts), len(text)]
    texts, shown = StopTexts(stops), ""
    for start, end in pairwise(places):
        shown += texts.feed(text[start:end])
        seen = text[:end] if end >= start else text
        for stop in stops:  # nothing was shown that a stop text takes back
            assert stop not in shown
            assert not (stop in seen and len(shown) > seen.index(stop))
    shown += texts.rest()
    ends = [text.index(stop) for stop in stops if stop in text]
    assert shown == text[: min(ends, default=len(text))]
