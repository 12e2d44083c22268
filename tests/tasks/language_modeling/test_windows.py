"""Which tokens are read and which are scored."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.models.tokenizer import Tokenizer
from compress.tasks.language_modeling.windows import Window, common_places, cut, read_row, same_text


@pytest.fixture(scope="module")
def tokenizer(language_published):
    return Tokenizer(language_published["llama"])


def test_windows_by_hand():
    assert cut(10, 4, 4) == [Window(0, 4, 1), Window(4, 8, 5), Window(8, 10, 9)]
    assert cut(9, 4, 4) == [Window(0, 4, 1), Window(4, 8, 5)]  # nothing precedes the last token
    assert cut(8, 4, 2) == [Window(0, 4, 1), Window(2, 6, 4), Window(4, 8, 6)]
    assert cut(3, 4, 4) == [Window(0, 3, 1)]
    assert cut(1, 4, 4) == []


@given(st.integers(0, 300), st.integers(2, 40), st.data())
def test_a_token_is_scored_once_with_what_precedes_it(tokens, context, data):
    stride = data.draw(st.integers(1, context))
    windows = cut(tokens, context, stride)
    scored = [i for window in windows for i in range(window.scored, window.stop)]
    assert len(scored) == len(set(scored))
    starts = {window.start for window in windows}
    assert set(range(1, tokens)) - set(scored) <= starts | {tokens - 1}
    if stride < context:
        assert scored == list(range(1, tokens))
    for window in windows:
        assert window.start < window.scored < window.stop <= window.start + context


@given(texts=st.lists(st.text(max_size=40), min_size=1, max_size=5))
def test_bytes_of_tokens_sum_to_those_of_the_text(tokenizer, texts):
    row = read_row(tokenizer, texts)
    assert (row.bytes >= 0).all()
    found = np.bincount(row.documents, row.bytes, minlength=len(texts))
    assert found.tolist() == [len(f"{text}\n".encode("utf-8", "surrogatepass")) for text in texts]
    joined = tokenizer.plain("".join(f"{text}\n" for text in texts[:1]))
    assert row.ids[row.documents == 0].tolist() == joined


def test_bytes_by_hand(tokenizer):
    row = read_row(tokenizer, ["é river"])
    assert row.ends[-1] == len("é river\n".encode())
    words = ["".join(tokenizer.decode([i]) for i in row.ids)]
    assert words != [""]
    assert row.bytes[:2].tolist() == [2, 0]  # both bytes of the letter are a token, the first counts for both


def test_another_tokenizer_reads_the_same_text(tokenizer, language_texts):
    """Words and single letters: each window of letters holds what the window of words does."""

    class Letters:
        def with_ends(self, text):
            return [ord(c) for c in text], list(range(1, len(text) + 1))

    texts = language_texts[:3]
    row, other = read_row(tokenizer, texts), read_row(Letters(), texts)
    windows = cut(len(row.ids), 20, 20)
    found = same_text(windows, row, other, 10_000)
    for window, own in zip(windows, found, strict=True):
        span = slice(own.start, own.stop)
        assert "".join(map(chr, other.ids[span])) == tokenizer.decode(row.ids[window.start : window.stop])
        left, right = common_places(row, window, other, own)
        assert len(left) == window.stop - window.scored  # every token of words begins where a letter does
        assert np.array_equal(row.ends[window.start + left - 1], other.ends[own.start + right - 1])
    assert sum(own.stop - own.start for own in found) == len(other.ids)
    assert same_text(windows, row, row, 10_000) == windows
    assert all(own.stop - own.start <= 30 for own in same_text(windows, row, other, 30))
