"""From words, passages and contexts to tokens, and back."""

import numpy as np
import pytest
import transformers

from compress.data.record import Record
from compress.schema.report import CutTexts
from compress.tasks import open_processor
from compress.tasks.question_answering.metrics import best_answers
from compress.tasks.question_answering.processor import Window
from compress.tasks.token_classification.processor import NOWHERE, first_tokens
from tests.heads import TASKS, WORDS


def test_the_first_token_of_a_word_is_that_of_transformers(headed_checkpoints, language_published):
    """Of a tokenizer of words, and of a byte-level one whose tokens begin with the space."""
    words = ("the", "river,", "runs.", "again", "old-new", "?")
    processor = open_processor(headed_checkpoints["token_classification"])
    stock = transformers.AutoTokenizer.from_pretrained(headed_checkpoints["token_classification"])
    [encoding] = processor.read([Record(words=words)])
    ids = stock(list(words), is_split_into_words=True)
    expected = [ids.word_ids().index(number) for number in range(len(words))]
    assert first_tokens(encoding, words) == expected
    bytes_of = transformers.AutoTokenizer.from_pretrained(language_published["llama"])
    encoding = bytes_of.backend_tokenizer.encode(" ".join(words))
    text, starts = " ".join(words), []
    for number in range(len(words)):
        begin = len(" ".join(words[:number])) + (number > 0)
        ends = enumerate(end for _, end in encoding.offsets)
        starts.append(next(i for i, end in ends if end > begin and text[end - 1] != " "))
    assert first_tokens(encoding, words) == starts


def test_words_behind_the_cut_are_nowhere(headed_checkpoints):
    processor = open_processor(headed_checkpoints["token_classification"])
    words = ("river",) * 70
    [encoding] = processor.read([Record(words=words)])
    places = first_tokens(encoding, words)
    assert places == [*range(1, 63), *[NOWHERE] * 8]
    [row] = processor.encode([Record(words=words, tags=(1,) * 70)])
    assert row.label == (-100, *[1] * 62, -100)


@pytest.mark.parametrize("task", TASKS)
def test_texts_that_are_longer_than_the_model_reads_are_counted(task, headed_checkpoints):
    """62 words and the marks around them are read, as stock transformers cuts, of a pair 61."""
    processor = open_processor(headed_checkpoints[task])
    words = ("river",) * 70
    if task == "token_classification":
        found = processor.count_cut([Record(words=words[:count]) for count in (62, 63, 70)])
        assert found == CutTexts(texts=3, cut=2, limit=64, words=195, unread=9)
    elif task == "reranking":
        passages = tuple(" ".join(words[:count]) for count in (58, 59, 60, 61, 62, 63))
        found = processor.count_cut([Record(text="a city", candidates=passages), Record(text="a", pair="b")])
        assert found == CutTexts(texts=7, cut=4, limit=64)
    elif task == "question_answering":  # contexts are read in windows
        asked = [Record(text=" ".join(words[:count]), pair=" ".join(words)) for count in (32, 33)]
        assert processor.count_cut(asked) == CutTexts(texts=2, cut=1, limit=32)
    else:
        texts = [" ".join(words[:count]) for count in (1, 62, 63, 70)]
        stock = transformers.AutoTokenizer.from_pretrained(headed_checkpoints[task])
        longer = sum(len(ids) > 64 for ids in stock(texts)["input_ids"])
        assert longer == 2
        assert processor.count_cut([*texts, Record(text=texts[0], pair=texts[3])]) == CutTexts(
            texts=5, cut=longer + 1, limit=64
        )


def test_every_window_knows_where_its_answer_is(headed_checkpoints):
    processor = open_processor(headed_checkpoints["question_answering"])
    words = [WORDS[i % 40] for i in range(150)]
    context, at = " ".join(words), len(" ".join(words[:100])) + 1
    answer = " ".join(words[100:103])
    question = Record(text="where", pair=context, answers=((at, answer),))
    windows, rows = processor.windows([question]), processor.encode([question])
    assert len(windows) == len(rows) > 2
    read = {place for window in windows for place in window.offsets if place}
    assert len(read) == 150  # every word is in a window
    found = 0
    for window, row in zip(windows, rows, strict=True):
        assert len(row) <= 64
        first, last = (int(place) for place in row.label)
        if (first, last) != (0, 0):
            found += 1
            assert context[window.offsets[first][0] : window.offsets[last][1]] == answer
    assert found


def test_the_best_answer_is_that_of_a_search_through_all(headed_checkpoints):
    processor = open_processor(headed_checkpoints["question_answering"])
    context = " ".join(WORDS[i % 40] for i in range(90))
    windows = processor.windows([Record(text="what", pair=context)] * 2)
    random = np.random.default_rng(0)
    given = [
        {name: random.normal(size=(1, len(window.tokens))) for name in ("start_logits", "end_logits")}
        for window in windows
    ]
    best = best_answers(windows, given, 2, 5, may_be_none=False)
    for question in range(2):
        options = [
            (start[first] + end[last], window.offsets[first][0], window.offsets[last][1])
            for window, each in zip(windows, given, strict=True)
            if window.example == question
            for start, end in [(each["start_logits"][0], each["end_logits"][0])]
            for first in range(len(start))
            for last in range(first, min(first + 5, len(start)))
            if window.offsets[first] and window.offsets[last]
        ]
        score, begin, end = max(options)
        assert best[question] == pytest.approx([begin, end, score])


def test_no_answer_where_the_first_token_scores_higher():
    tokens = type("T", (), {"__len__": lambda self: 3})()
    window = Window(0, tokens, (None, (0, 3), (4, 7)))
    given = [{"start_logits": np.array([[5.0, 1, 0]]), "end_logits": np.array([[5.0, 0, 1]])}]
    assert best_answers([window], given, 1, 30, may_be_none=True).tolist() == [[0, 0, 10]]
    assert best_answers([window], given, 1, 30, may_be_none=False).tolist() == [[0, 7, 2]]


def test_a_long_question_leaves_half_for_the_context(headed_checkpoints):
    processor = open_processor(headed_checkpoints["question_answering"])
    windows = processor.windows([Record(text="where " * 200, pair="the river runs")])
    assert [len([each for each in window.offsets if each]) for window in windows] == [3]


def test_passages_of_a_query_are_read_beside_it(headed_checkpoints):
    processor = open_processor(headed_checkpoints["reranking"])
    query = Record(text="old stone", candidates=("a river", "the city", "music"), relevance=(0, 2, 0))
    rows = processor.encode([query, Record(text="a", pair="b", labels=(1.0,)), "the train"])
    assert [row.label for row in rows] == [(0,), (2,), (0,), (1.0,), ()]
    stock = transformers.AutoTokenizer.from_pretrained(headed_checkpoints["reranking"])
    expected = stock(["old stone"] * 3, list(query.candidates))
    assert [row.ids for row in rows[:3]] == expected["input_ids"]
    assert [row.types for row in rows[:3]] == expected["token_type_ids"]
    assert [len(of) for of in processor.queries([query, "the train", "a city"])] == [3, 1, 1]
    assert processor.queries(["the train", "a city"])[0][0].ids == stock("the train", "a city")["input_ids"]
    many = Record(text="a", candidates=tuple(WORDS[:40]), relevance=(1, *[0] * 39))
    assert len(processor.texts([many])) == 4
    assert len(processor.encode([many])) == 40
