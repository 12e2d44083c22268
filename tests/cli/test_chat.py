"""`compress chat`: each line is answered as the conversation before has it."""

import io
import sys
from types import SimpleNamespace

import pytest

from compress.cli import chat
from compress.cli.chat import Settings, converse, lines
from compress.cli.main import main
from compress.errors import ConfigError
from compress.serve.shipped import Shipped
from compress.serve.writer import Writer, Writing
from tests.shipped import TEMPLATE, greedy, ship_tiny


@pytest.fixture(scope="module")
def shipped(tmp_path_factory, tiny_lm):
    return ship_tiny(tmp_path_factory.mktemp("lm"), tiny_lm, 48, TEMPLATE)


@pytest.fixture
def writer(shipped):
    return Writer(Shipped(shipped))


def answers(tiny_lm, *said, count=3):
    """By numpy, of the conversation as the template puts it."""
    ids, found = [], []
    for words in said:
        ids = [*ids, 2, *words, 3]
        found.append(greedy(tiny_lm, ids, count))
        ids = [*ids, *found[-1]]
    return ["".join(f" w{number}" for number in each) for each in found]


def test_a_conversation_through_a_pipe(shipped, tiny_lm, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("w5 w9\n\nw8\n/new\nw5 w9\n/exit\nw1\n"))
    assert main(["chat", str(shipped), "--max-new-tokens", "3"]) == 0
    first, second = answers(tiny_lm, [5, 9], [8])
    assert capsys.readouterr().out.splitlines() == [first, second, first]


def test_what_the_model_is_told_first(writer, tiny_lm):
    out = io.StringIO()
    converse(writer, Settings(system="w7", max_new_tokens=2), ["w5", "/new", "w5"], out)
    expected = "".join(f" w{number}" for number in greedy(tiny_lm, [1, 7, 2, 5, 3], 2))
    assert out.getvalue() == f"{expected}\n{expected}\n"


def test_each_answer_has_a_seed_of_its_own(writer):
    def draw(seed):
        out = io.StringIO()
        settings = Settings(max_new_tokens=9, temperature=9.0, seed=seed)
        converse(writer, settings, ["w5", "/new", "w5"], out)
        return out.getvalue().splitlines()

    assert draw(1) == draw(1) != draw(7)
    assert draw(1)[0] != draw(1)[1]


def test_a_conversation_that_is_too_long_may_begin_anew(writer, capsys):
    out = io.StringIO()
    converse(writer, Settings(max_new_tokens=30), ["w5", "w8 " * 20, "/new", "w5", "w5"], out)
    first, other, again = out.getvalue().splitlines()
    assert first == other
    assert len(again.split()) < 30
    said = capsys.readouterr().err
    assert "the prompt is longer than the model's context" in said
    assert said.count("/new begins another conversation") == 2
    assert "the model's context is full" in said


def test_ctrl_c_ends_an_answer_and_not_the_conversation(writer, tiny_lm, monkeypatch):
    step, interrupted = Writing.step, []

    def interrupting(self):
        if self.new_tokens == 2 and not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(Writing, "step", interrupting)
    out = io.StringIO()
    converse(writer, Settings(max_new_tokens=3), ["w5", "w8"], out)
    [kept] = answers(tiny_lm, [5], count=2)
    ids = [2, 5, 3, *(int(word[1:]) for word in kept.split()), 2, 8, 3]
    assert out.getvalue() == kept + "\n" + "".join(f" w{each}" for each in greedy(tiny_lm, ids, 3)) + "\n"


def test_a_terminal_is_asked_for_each_line(monkeypatch, capsys):
    typed = iter(["one", "two"])

    def type_in(prompt):
        if (line := next(typed, None)) is None:
            raise EOFError
        return line

    monkeypatch.setattr(chat, "input", type_in, raising=False)
    assert list(lines(SimpleNamespace(isatty=lambda: True))) == ["one", "two"]
    assert capsys.readouterr().out == "\n"


def test_settings_out_of_range():
    with pytest.raises(ConfigError, match="--top-p"):
        Settings(top_p=2.0)


def test_a_model_that_does_not_chat(tmp_path, tiny_lm, capsys):
    assert main(["chat", str(ship_tiny(tmp_path, tiny_lm, 8))]) == 1
    assert "does not chat" in capsys.readouterr().err
