"""Text of tokens as they come, beside the text of all of them."""

import pytest
from hypothesis import given, strategies
from tokenizers import Tokenizer, decoders, models

from compress.serve.characters import Characters


def of_bytes(ids):
    return bytes(ids).decode("utf-8", errors="replace")


def pieces(text, before=b""):
    characters = Characters(of_bytes, list(before))
    return [*map(characters.feed, text), characters.rest()]


def test_a_character_comes_with_its_last_byte():
    assert pieces("aé€😀z".encode()) == ["a", "", "é", "", "", "€", "", "", "", "😀", "z", ""]


def test_a_character_that_is_cut_off_does_not_come():
    assert pieces("ab€".encode()[:-1]) == ["a", "b", "", "", ""]


def test_what_stood_before_does_not_come_out():
    assert pieces(b"xy", before=b"a long text before") == ["x", "y", ""]


@given(strategies.text(max_size=60), strategies.text(max_size=20))
def test_all_characters_of_a_text_come_whole(text, before):
    told = pieces(text.encode(), before.encode())
    assert "".join(told) == text.rstrip("\N{REPLACEMENT CHARACTER}")
    assert all(piece in text for piece in told)


@given(strategies.binary(max_size=60))
def test_bytes_that_are_no_text_come_as_they_are_decoded(found):
    assert "".join(pieces(found)) == of_bytes(found).rstrip("\N{REPLACEMENT CHARACTER}")


@pytest.fixture(scope="module")
def of_pieces():
    """As SentencePiece's: a text loses the space that it begins with."""
    words = ["▁once", "▁upon", "a", "▁time", "<0xE2>", "<0x82>", "<0xAC>"]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, [], byte_fallback=True))
    back = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(back)
    return lambda ids: tokenizer.decode(list(ids))


def test_a_space_is_lost_at_the_beginning_of_a_text_alone(of_pieces):
    beginning, going_on = Characters(of_pieces), Characters(of_pieces, [0])
    assert [beginning.feed(token) for token in (0, 1, 2, 3)] == ["once", " upon", "a", " time"]
    assert [going_on.feed(token) for token in (1, 2, 3)] == [" upon", "a", " time"]
    assert [going_on.feed(token) for token in (4, 5, 6, 1)] == ["", "", "€", " upon"]
