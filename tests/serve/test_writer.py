"""Texts of one writer, beside numpy's most likely tokens."""

import os
from itertools import count

import numpy as np
import pytest

from compress.errors import ConfigError, ModelError
from compress.runner.attention import SWITCH
from compress.serve.shipped import Shipped
from compress.serve.writer import PromptTooLong, Wanted, Writer
from tests.shipped import TEMPLATE, greedy, ship_tiny

CONTEXT = 40


@pytest.fixture(scope="module")
def shipped(tmp_path_factory, tiny_lm):
    return Shipped(ship_tiny(tmp_path_factory.mktemp("lm"), tiny_lm, CONTEXT, TEMPLATE))


@pytest.fixture
def writer(shipped):
    return Writer(shipped)


def words(ids):
    return " ".join(f"w{number}" for number in ids)


def test_what_both_texts_begin_with_is_read_once(writer, tiny_lm, monkeypatch):
    read, run = [], writer.decoder.run
    monkeypatch.setattr(
        writer.decoder, "run", lambda ids, last=False: (read.append(len(ids)), run(ids, last))[1]
    )
    first = greedy(tiny_lm, [5, 3, 9], 4)
    writing = writer.start([5, 3, 9], Wanted(max_new_tokens=4))
    assert "".join(writing).strip() == words(first)
    assert (writing.prompt_tokens, writing.known_tokens, writing.new_tokens) == (3, 0, 4)
    assert read == [3, 1, 1, 1]
    read.clear()
    longer = [5, 3, 9, *first, 8]
    writing = writer.start(longer, Wanted(max_new_tokens=2))
    assert "".join(writing).strip() == words(greedy(tiny_lm, longer, 2))
    assert (writing.known_tokens, read) == (6, [2, 1])  # the last token of a text is never read
    writing = writer.start([5, 3, 7], Wanted(max_new_tokens=2))
    assert "".join(writing).strip() == words(greedy(tiny_lm, [5, 3, 7], 2))
    assert writing.known_tokens == 2
    writing = writer.start([5, 3, 7], Wanted(max_new_tokens=2))
    assert "".join(writing).strip() == words(greedy(tiny_lm, [5, 3, 7], 2))
    assert writing.known_tokens == 2  # the last one is read again: its logits are asked for


def test_a_text_that_is_left_spoils_no_other(writer, tiny_lm):
    writing = writer.start([5, 3, 9], Wanted())
    writing.step()
    writing.step()
    assert "".join(writer.start([5, 3, 9, 1], Wanted(max_new_tokens=3))).strip() == words(
        greedy(tiny_lm, [5, 3, 9, 1], 3)
    )


def test_a_failure_spoils_no_other(writer, tiny_lm, monkeypatch):
    calls, run = count(), writer.decoder.run

    def failing(ids, last=False):
        logits = run(ids, last)
        if next(calls) == 2:
            raise ModelError("out of order")
        return logits

    monkeypatch.setattr(writer.decoder, "run", failing)
    with pytest.raises(ModelError):
        list(writer.start([5, 3, 9], Wanted(max_new_tokens=9)))
    writing = writer.start([5, 3, 9], Wanted(max_new_tokens=3))
    assert "".join(writing).strip() == words(greedy(tiny_lm, [5, 3, 9], 3))
    assert writing.known_tokens == 0


def test_stop_texts_and_the_context_end_a_text(writer, tiny_lm):
    first = greedy(tiny_lm, [5, 3, 9], CONTEXT)
    text = " " + words(first)
    stop = words(first[3:5]) + " "  # no other word begins with its last one
    writing = writer.start([5, 3, 9], Wanted(stop=("none", stop)))
    assert "".join(writing) == text[: text.index(stop)]
    assert writing.finish == "stop"
    writing = writer.start([5, 3, 9], Wanted(stop=("none",)))
    assert "".join(writing) == " " + words(first[: CONTEXT - 2])
    assert (writing.finish, writing.new_tokens, writing.full) == ("length", CONTEXT - 2, True)


def test_prompts_that_cannot_be_written_after(writer):
    with pytest.raises(ConfigError, match="empty"):
        writer.start([], Wanted())
    with pytest.raises(PromptTooLong, match=f"{CONTEXT + 1} tokens"):
        writer.start([1] * (CONTEXT + 1), Wanted())


def test_less_than_the_context(shipped):
    small = Writer(shipped, 8)
    assert small.decoder.capacity == 8
    with pytest.raises(PromptTooLong, match="at most 8"):
        small.check([1] * 9)
    assert Writer(shipped, 10**6).context == CONTEXT


def test_the_graph_has_the_threads_of_its_times(shipped):
    assert shipped.threads == 1
    assert shipped.open(8).session.get_session_options().intra_op_num_threads == 1


def test_attention_is_the_faster_one_for_the_pieces_that_prompts_are_read_in(shipped, monkeypatch):
    for longrope, capacity, plain in ((None, 8192, "1"), (None, 2**15, "0"), (4096, 8192, "0")):
        monkeypatch.setattr(shipped, "anew", longrope)  # which reads so many tokens at once
        shipped.open(capacity)
        assert os.environ[SWITCH] == plain


def test_chats(shipped):
    assert shipped.chats
    told = shipped.dialogue([{"role": "system", "content": "w7"}, {"role": "user", "content": "w8 w9"}])
    assert told == [1, 7, 2, 8, 9, 3]
    with pytest.raises(ConfigError, match="a user speaks first"):
        shipped.dialogue([{"role": "assistant", "content": "w7"}])


def test_seeds(writer):
    def draw(seed):
        return "".join(writer.start([5], Wanted(max_new_tokens=12, temperature=9.0, seed=seed)))

    assert draw(1) == draw(1) != draw(2)
    assert len({draw(None) for _ in range(5)}) > 1
    assert np.isfinite(writer.decoder.run(np.array([1]))).all()
