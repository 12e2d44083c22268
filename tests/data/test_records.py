"""Labelled text of one's own: what is read, how it is cut, what each mistake in a file says."""

import csv
import gzip
import json
import random
import subprocess
import sys
import textwrap
from collections import Counter
from dataclasses import replace

import pyarrow
import pytest
from pyarrow import parquet

from compress.config.records import Columns, RecordData, TrainingSet
from compress.data import input_digests, load_splits, open_splits
from compress.errors import ConfigError, DataError

MOODS = ("sad", "calm", "glad")
_VERBS = ["walks", "runs", "sleeps", "sings", "writes", "paints", "reads", "cooks", "swims", "climbs"]
_PLACES = ["bridge", "river", "harbour", "garden", "tower", "market", "station", "forest", "island", "museum"]


def sentence(i):
    words = random.Random(i)
    parts = (f"The {words.choice('bcdfgh')}{words.choice('aeiou')}{words.choice('lmnprst')}er" for _ in "ab")

    end = chr(97 + i % 26) * (i // 26 + 1)
    return " ".join([*parts, words.choice(_VERBS), "beside the", words.choice(_PLACES), end])


def rows(count=120):
    return [{"text": sentence(i), "label": MOODS[0 if i % 10 == 0 else 1 + i % 2]} for i in range(count)]


def jsonl(path, found):
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return TrainingSet(source=f"path:{path}")


def opened(folder, checkpoint=None, examples=None, **settings):
    open_splits(RecordData(**settings), folder, checkpoint=checkpoint, examples=examples)
    return load_splits(folder)


def model(folder, names, **facts):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"id2label": dict(enumerate(names)), **facts}))
    return folder


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


# ---------------------------------------------------------------- cutting


def test_one_file_is_cut_by_label_into_splits_that_share_nothing(tmp_path):
    splits = opened(tmp_path / "out", train_set=jsonl(tmp_path / "mine.jsonl", rows()))
    sizes = {split.name: len(split.examples) for split in splits.parts}
    assert sizes == {"calibration": 12, "train": 72, "select": 12, "test": 24}
    assert splits.names == tuple(sorted(MOODS))
    for split in splits.parts:  # 10 %, 40 % and 50 % of each
        counts = Counter(splits.names[int(record.labels[0])] for record in split.examples)
        assert abs(counts["sad"] - len(split.examples) * 0.1) < 1
    by_text = {row["text"]: row["label"] for row in rows()}
    for split in splits.parts:
        for record in split.examples:
            assert by_text[record.text] == splits.names[int(record.labels[0])]
            assert rows()[record.line - 1]["text"] == record.text
    everything = [record.text for split in splits.parts for record in split.examples]
    assert sorted(everything) == sorted(by_text)
    assert splits.test_sets == {"test": splits.test.fingerprint}


def test_one_seed_gives_the_same_bytes_and_another_other_examples(tmp_path):
    mine = jsonl(tmp_path / "mine.jsonl", rows())
    first, again, other = (
        opened(tmp_path / str(i), train_set=mine, seed=seed) for i, seed in enumerate((0, 0, 1))
    )
    assert first == again
    assert set(first.test.examples) != set(other.test.examples)


def test_numbers_and_shares_are_delivered_or_refused(tmp_path):
    mine = jsonl(tmp_path / "mine.jsonl", rows())
    asked = {"test": 30, "select": 0.25, "calibration": 10, "train": 20}
    splits = opened(tmp_path / "out", train_set=mine, **asked)
    sizes = {each.name: len(each.examples) for each in splits.parts}
    assert sizes == {"test": 30, "select": 30, "calibration": 10, "train": 20}
    facts = splits.facts()
    assert (facts["test"].requested, facts["select"].requested, facts["train"].requested) == (30, None, 20)
    with pytest.raises(DataError, match="too few examples for select") as error:
        opened(tmp_path / "no", train_set=mine, test=100, select=50)
    assert "20 left of 120" in str(error.value)
    with pytest.raises(ConfigError, match="no number of examples"):
        RecordData(train_set=mine, test=10.5)


def test_a_group_stays_on_one_side(tmp_path):
    found = [{**row, "document": f"d{i % 17}"} for i, row in enumerate(rows(170))]
    splits = opened(tmp_path / "out", train_set=jsonl(tmp_path / "m.jsonl", found), group="document", test=40)
    owners = {}
    for split in splits.parts:
        for record in split.examples:
            assert owners.setdefault(record.group, split.name) == split.name
    assert len(splits.test.examples) == 40
    assert len({record.group for record in splits.test.examples}) == 4  # of ten each
    with pytest.raises(DataError, match="one group has all examples"):
        opened(tmp_path / "no", train_set=jsonl(tmp_path / "n.jsonl", [{**r, "document": 1} for r in rows()]),
               group="document")  # fmt: skip


def test_texts_that_are_all_but_equal_stay_on_one_side_and_copies_are_dropped(tmp_path):
    found = []
    for i, row in enumerate(rows(60)):
        found += [
            row,
            {**row, "text": f"{row['text'].upper()}, {1900 + i}!"},
            {**row, "text": f" {row['text']} "},
        ]
    splits = opened(tmp_path / "out", train_set=jsonl(tmp_path / "mine.jsonl", found))
    owners = {}
    for split in splits.parts:
        for record in split.examples:
            assert owners.setdefault(record.text.lower().split(",")[0].strip(), split.name) == split.name
    assert manifest(tmp_path / "out")["dropped"]["train"]["copies"] == 60


def test_what_nearly_repeats_an_earlier_split_is_dropped_where_we_cut_and_counted_where_we_do_not(tmp_path):
    base = "The council agreed on {} to close the old bridge over the northern river for repairs"
    base += " until the floods of spring are over and the ships of the harbour have left again"
    days = ["monday", "mondays", "munday", "sunday", "sundays", "friday", "fridays", "today"]
    near = [{"text": base.format(day), "label": MOODS[i % 2]} for i, day in enumerate(days)]
    mine = jsonl(tmp_path / "mine.jsonl", rows(60) + near)
    splits = opened(tmp_path / "out", train_set=mine)
    having = [
        split.name for split in splits.parts for r in split.examples if r.text.startswith("The council")
    ]
    assert len(set(having)) == 1
    labels = {"thursday": "sad", "mondayish": "calm"}
    tested = [{"text": base.format(day), "label": label} for day, label in labels.items()]
    given = opened(tmp_path / "given", train_set=mine, test_set=jsonl(tmp_path / "test.jsonl", tested))
    assert given.facts()["test"].near_duplicates.examples == 2
    assert any(record.text.startswith("The council") for record in given.train.examples)


def test_given_sets_keep_what_they_have_and_the_others_do_not_get_it(tmp_path):
    test = rows(40)[:20]
    splits = opened(
        tmp_path / "out",
        train_set=jsonl(tmp_path / "train.jsonl", rows(120)),
        test_set=jsonl(tmp_path / "test.jsonl", test),
        select_set=jsonl(tmp_path / "dev.jsonl", rows(40)[10:30]),
    )
    assert [record.text for record in splits.test.examples] == [row["text"] for row in test]
    assert [record.text for record in splits.select.examples] == [row["text"] for row in rows(40)[20:30]]
    seen = {record.text for split in (splits.train, splits.calibration) for record in split.examples}
    assert not seen & {row["text"] for row in rows(30)}
    assert manifest(tmp_path / "out")["dropped"]["train"]["of other sets"] == 30


def test_splits_that_were_changed_are_refused(tmp_path):
    opened(tmp_path / "out", train_set=jsonl(tmp_path / "mine.jsonl", rows()))
    path = tmp_path / "out" / "test.jsonl"
    path.write_text(path.read_text().replace("The", "A", 1))
    with pytest.raises(DataError, match="was changed after it was written"):
        load_splits(tmp_path / "out")


def test_splits_that_share_an_example_are_refused(tmp_path):
    opened(tmp_path / "out", train_set=jsonl(tmp_path / "mine.jsonl", rows()))
    content = manifest(tmp_path / "out")
    (tmp_path / "out" / "select.jsonl").write_bytes((tmp_path / "out" / "test.jsonl").read_bytes())
    content["splits"]["select"]["fingerprint"] = content["splits"]["test"]["fingerprint"]
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="the splits select and test share"):
        load_splits(tmp_path / "out")


def test_weights_make_every_class_count_the_same(tmp_path):
    splits = opened(tmp_path / "out", train_set=jsonl(tmp_path / "mine.jsonl", rows()))
    counts = Counter(int(record.labels[0]) for record in splits.train.examples)
    weights = splits.class_weights()
    assert [weights[k] * counts[k] for k in range(3)] == pytest.approx([24, 24, 24])


def test_what_is_read_is_what_the_key_of_the_stage_holds(tmp_path):
    train, test = (jsonl(tmp_path / f"{name}.jsonl", rows(30)) for name in ("a", "b"))
    digests = input_digests(RecordData(train_set=train, test_set=test))
    assert set(digests) == {train.source, test.source}
    jsonl(tmp_path / "b.jsonl", rows(31))
    assert input_digests(RecordData(train_set=train, test_set=test))[test.source] != digests[test.source]


# ---------------------------------------------------------------- labels


def test_labels_are_numbers_of_the_models_outputs(tmp_path):
    mine = jsonl(tmp_path / "mine.jsonl", rows())
    checkpoint = model(tmp_path / "model", ["Glad", "other", "SAD", "calm"])
    splits = opened(tmp_path / "out", checkpoint, train_set=mine)
    assert splits.names == ("Glad", "other", "SAD", "calm")
    wanted = {"glad": 0, "sad": 2, "calm": 3}
    by_text = {row["text"]: wanted[row["label"]] for row in rows()}
    assert all(record.labels == (by_text[record.text],) for record in splits.test.examples)


def test_a_label_that_the_model_does_not_know_is_told_with_its_line(tmp_path):
    found = rows()
    found[41]["label"] = "furious"
    mine = jsonl(tmp_path / "mine.jsonl", found)
    with pytest.raises(DataError, match=r"mine.jsonl:42: the model does not know the label 'furious'"):
        opened(tmp_path / "out", model(tmp_path / "model", MOODS), train_set=mine)


def test_numbers_without_names_are_the_outputs_in_their_order(tmp_path):
    found = [{"text": row["text"], "label": i % 2} for i, row in enumerate(rows())]
    checkpoint = model(tmp_path / "model", ["NEGATIVE", "POSITIVE"])
    splits = opened(tmp_path / "out", checkpoint, train_set=jsonl(tmp_path / "mine.jsonl", found))
    by_text = {row["text"]: row["label"] for row in found}
    assert splits.names == ("NEGATIVE", "POSITIVE")
    assert all(record.labels == (by_text[record.text],) for record in splits.test.examples)


def test_names_for_a_model_without_names_must_be_told(tmp_path):
    mine = jsonl(tmp_path / "mine.jsonl", rows())
    checkpoint = model(tmp_path / "model", ["LABEL_0", "LABEL_1", "LABEL_2"])
    with pytest.raises(DataError, match="do not tell which output"):
        opened(tmp_path / "no", checkpoint, train_set=mine)
    splits = opened(tmp_path / "out", checkpoint, train_set=mine, classes=["glad", "sad", "calm"])
    assert splits.names == ("glad", "sad", "calm")


def test_several_labels_are_zeros_and_ones(tmp_path):
    found = [{"text": row["text"], "label": [["a"], ["a", "c"], []][i % 3]} for i, row in enumerate(rows())]
    checkpoint = model(tmp_path / "m", "abc", problem_type="multi_label_classification")
    splits = opened(tmp_path / "out", checkpoint, train_set=jsonl(tmp_path / "mine.jsonl", found))
    assert {record.labels for record in splits.test.examples} == {(1, 0, 0), (1, 0, 1), (0, 0, 0)}
    assert splits.class_weights()[0] == pytest.approx(0.5, abs=0.25)  # without it / with it
    written = [{"text": row["text"], "label": "; ".join(row["label"])} for row in found if row["label"]]
    by_field = opened(
        tmp_path / "csv", checkpoint, train_set=jsonl(tmp_path / "f.jsonl", written), label_separator=";"
    )
    assert {record.labels for record in by_field.test.examples} == {(1, 0, 0), (1, 0, 1)}
    with pytest.raises(DataError, match="several labels, of which the model gives one"):
        opened(tmp_path / "no", model(tmp_path / "m1", "abc", problem_type="single_label_classification"),
               train_set=jsonl(tmp_path / "mine.jsonl", found))  # fmt: skip


def test_a_model_of_several_labels_reads_one_label_as_a_list_of_one(tmp_path):
    labels = ["a", ["a", "c"], ["b"], []]
    found = [{"text": row["text"], "label": labels[i % 4]} for i, row in enumerate(rows())]
    checkpoint = model(tmp_path / "m", "abc", problem_type="multi_label_classification")
    splits = opened(tmp_path / "out", checkpoint, train_set=jsonl(tmp_path / "mine.jsonl", found))
    wanted = {(1, 0, 0), (1, 0, 1), (0, 1, 0), (0, 0, 0)}
    assert {record.labels for split in splits.parts for record in split.examples} == wanted
    ones = [{"text": row["text"], "label": "abc"[i % 3]} for i, row in enumerate(rows())]
    splits = opened(tmp_path / "ones", checkpoint, train_set=jsonl(tmp_path / "ones.jsonl", ones))
    assert {record.labels for record in splits.test.examples} == {(1, 0, 0), (0, 1, 0), (0, 0, 1)}
    zeros = [{"text": row["text"], "label": [[0, 1, 0], [1, 1, 0]][i % 2]} for i, row in enumerate(rows())]
    with pytest.raises(DataError, match="the text has a label twice"):
        opened(tmp_path / "no", checkpoint, train_set=jsonl(tmp_path / "zeros.jsonl", zeros))


def test_lists_of_one_label_are_of_one_label_where_the_model_is(tmp_path):
    """Read as zeros and ones, the first of them would count as the number of the class."""
    found = [{"text": row["text"], "label": [MOODS[i % 2]]} for i, row in enumerate(rows())]
    checkpoint = model(tmp_path / "m", MOODS)  # no problem_type, as most are published
    splits = opened(tmp_path / "out", checkpoint, train_set=jsonl(tmp_path / "mine.jsonl", found))
    for record in splits.test.examples:
        assert splits.names[int(record.labels[0])] == found[record.line - 1]["label"][0]
        assert len(record.labels) == 1
    found[4]["label"] = []
    with pytest.raises(DataError, match=r"(?s)mine.jsonl:5: the text has no label,.*an empty list"):
        opened(tmp_path / "no", checkpoint, train_set=jsonl(tmp_path / "mine.jsonl", found))


def test_several_values_a_text_are_refused(tmp_path):
    found = [{"text": row["text"], "label": [i, 2]} for i, row in enumerate(rows())]
    with pytest.raises(DataError, match="several labels, of which the model gives one"):
        opened(
            tmp_path / "no", model(tmp_path / "m", ["LABEL_0"]), train_set=jsonl(tmp_path / "m.jsonl", found)
        )
    with pytest.raises(DataError, match="the model gives several values"):
        opened(tmp_path / "no", model(tmp_path / "m", "ab", problem_type="regression"),
               train_set=jsonl(tmp_path / "m.jsonl", found))  # fmt: skip


def test_a_model_with_one_output_has_values(tmp_path):
    texts = [row["text"] for row in rows()]
    found = [{"premise": text, "hypothesis": "It rains.", "score": i / 7} for i, text in enumerate(texts)]
    checkpoint = model(tmp_path / "m", ["LABEL_0"])
    splits = opened(tmp_path / "out", checkpoint, train_set=jsonl(tmp_path / "mine.jsonl", found))
    record = splits.test.examples[0]
    assert (record.pair, record.labels) == ("It rains.", ((record.line - 1) / 7,))
    assert splits.names == ()
    found[5]["score"] = "high"
    with pytest.raises(DataError, match=r"mine.jsonl:6: .* the label is no number"):
        opened(
            tmp_path / "no", checkpoint, train_set=jsonl(tmp_path / "mine.jsonl", found), test=100, select=1
        )


def test_one_class_only_is_refused_and_one_that_test_lacks_is_told(tmp_path):
    alike = [{**row, "label": "calm"} for row in rows(30)]
    with pytest.raises(DataError, match="one class only") as error:
        opened(tmp_path / "no", train_set=jsonl(tmp_path / "a.jsonl", rows()),
               test_set=jsonl(tmp_path / "b.jsonl", alike))  # fmt: skip
    assert "calm: 30 examples (line 1)" in str(error.value)
    two = [row for row in rows(60) if row["label"] != "sad"]
    opened(tmp_path / "out", train_set=jsonl(tmp_path / "a.jsonl", rows()[60:]),
           test_set=jsonl(tmp_path / "b.jsonl", two))  # fmt: skip
    assert manifest(tmp_path / "out")["absent"] == ["sad"]


@pytest.mark.parametrize(
    ("count", "message"),
    [(3, r"(?s)too few examples.*found: +3 that differ.*more than 3: 1 of test, 1 of select"),
     (6, r"(?s)test set is too small.*1 of 6 examples.*data.test=0.5")],
)  # fmt: skip
def test_too_few_examples_are_told_as_such(count, message, tmp_path):
    with pytest.raises(DataError, match=message):
        opened(tmp_path / "no", train_set=jsonl(tmp_path / "mine.jsonl", rows(count)))


def test_numbers_with_fractions_are_values_where_no_model_says_otherwise(tmp_path):
    found = [{"text": row["text"], "label": i / 4} for i, row in enumerate(rows())]
    splits = opened(tmp_path / "out", train_set=jsonl(tmp_path / "mine.jsonl", found))
    assert splits.names == ()
    assert {record.labels for record in splits.test.examples} == {
        (found[record.line - 1]["label"],) for record in splits.test.examples
    }
    named = [{**row, "label": f"{row['label'] % 3}"} for row in found]  # 0.0, 0.25, ... as a table has them
    assert opened(tmp_path / "again", train_set=jsonl(tmp_path / "m.jsonl", named)).names == ()
    stars = [{**row, "label": float(i % 5)} for i, row in enumerate(found)]
    assert opened(tmp_path / "stars", train_set=jsonl(tmp_path / "m.jsonl", stars)).names == tuple("01234")


def test_texts_to_train_on_need_no_labels(tmp_path):
    plain = jsonl(tmp_path / "plain.jsonl", [{"text": row["text"]} for row in rows()])
    splits = opened(tmp_path / "out", train_set=plain, test_set=jsonl(tmp_path / "test.jsonl", rows(20)))
    assert {record.labels for record in splits.train.examples} == {()}
    with pytest.raises(DataError, match="the test set has no labels"):
        opened(tmp_path / "no", train_set=plain)


# ---------------------------------------------------------------- tasks


def test_tags_of_words(tmp_path):
    found = [{"tokens": row["text"].split(), "ner_tags": ["O"] * (len(row["text"].split()) - 1) + ["B-X"]}
             for row in rows()]  # fmt: skip
    checkpoint = model(tmp_path / "m", ["B-X", "I-X", "O"])
    splits = opened(tmp_path / "out", checkpoint, train_set=jsonl(tmp_path / "mine.jsonl", found))
    record = splits.test.examples[0]
    assert record.words == tuple(found[record.line - 1]["tokens"])
    assert record.tags == (2,) * (len(record.words) - 1) + (0,)
    found[7]["ner_tags"].pop()
    with pytest.raises(DataError, match=r"mine.jsonl:8: tags do not align with words"):
        opened(tmp_path / "no", checkpoint, train_set=jsonl(tmp_path / "mine.jsonl", found))


def test_queries_with_passages(tmp_path):
    texts = [row["text"] for row in rows()]
    found = [{"query": f"who {text}", "positive": text, "negatives": ["No.", text, "Yes."]} for text in texts]
    splits = opened(tmp_path / "out", train_set=jsonl(tmp_path / "mine.jsonl", found))
    record = splits.test.examples[0]
    assert record.candidates == (record.text.removeprefix("who "), "No.", "Yes.")
    assert record.relevance == (1, 0, 0)
    found[3]["positive"] = []
    with pytest.raises(DataError, match=r"mine.jsonl:4: the query has no passage that answers it"):
        opened(tmp_path / "no", train_set=jsonl(tmp_path / "mine.jsonl", found))


def test_a_passage_a_row_is_gathered_by_query(tmp_path):
    found = [
        {"query": f"who {row['text']}", "passage": f"{row['text']} {k}", "label": [2, 0, 1][k]}
        for row in rows()
        for k in range(3)
    ]
    splits = opened(tmp_path / "out", train_set=jsonl(tmp_path / "mine.jsonl", found))
    assert sum(len(split.examples) for split in splits.parts) == 120
    assert {record.relevance for record in splits.test.examples} == {(2, 0, 1)}
    assert all(len(record.candidates) == 3 for record in splits.test.examples)


def test_rows_of_one_query_are_one_example(tmp_path):
    """As sentence-transformers' triplets are written: each row has a query, a positive and a negative."""
    found = [
        {"anchor": f"who {text}", "positive": f"{text} {k}", "negative": f"No {text} {1 - k}"}
        for text in (row["text"] for row in rows())
        for k in range(2)
    ]
    found[1]["negative"] = found[0]["positive"]  # which answers, as the row before says
    splits = opened(tmp_path / "out", train_set=jsonl(tmp_path / "mine.jsonl", found))
    records = [record for split in splits.parts for record in split.examples]
    assert len(records) == 120
    for record in records:
        text = record.text.removeprefix("who ")
        gains = dict(zip(record.candidates, record.relevance, strict=True))
        good = {f"{text} 0": 1, f"{text} 1": 1}
        assert gains == {**good, f"No {text} 1": 0, **({f"No {text} 0": 0} if record.line != 1 else {})}


def by_query(splits):
    return {
        record.text: dict(zip(record.candidates, record.relevance, strict=True))
        for split in splits.parts
        for record in split.examples
    }


@pytest.mark.parametrize(
    "columns",
    [
        ("text", "pair", "label"),
        ("sentence1", "sentence2", "label"),
        ("query", "passage", "score"),
        ("question", "answer", "labels"),
        ("anchor", "positive", "label"),
    ],
)
def test_pairs_with_a_label_are_queries_wherever_their_rows_stand(columns, tmp_path):
    """As sentence-transformers' CrossEncoder is trained: (query, passage, label) rows, in any order."""
    wanted = {
        f"who {row['text']}": {f"{row['text']} {k}": [0.5, 0, 1, 0][k] for k in range(4)} for row in rows()
    }
    found = [
        dict(zip(columns, (query, passage, gain), strict=True))
        for query, gains in wanted.items()
        for passage, gain in gains.items()
    ]
    random.Random(0).shuffle(found)
    splits = opened(tmp_path / "out", examples="ranking", train_set=jsonl(tmp_path / "m.jsonl", found))
    assert by_query(splits) == wanted
    assert sum(len(split.examples) for split in splits.parts) == 120
    assert splits.names == ()
    assert "train" not in manifest(tmp_path / "out")["dropped"]
    (tmp_path / "parts").mkdir()
    for part in range(2):  # rows of a query in two files
        jsonl(tmp_path / "parts" / f"{part}.jsonl", found[part::2])
    parts = TrainingSet(source=f"path:{tmp_path}/parts")
    assert by_query(opened(tmp_path / "of_parts", examples="ranking", train_set=parts)) == wanted


def test_columns_of_pairs_by_name_are_a_ranking_for_a_reranker_and_texts_for_others(tmp_path):
    found = [{"a": row["text"], "b": f"{row['text']} {k}", "y": k} for row in rows() for k in range(2)]
    mine, named = jsonl(tmp_path / "m.jsonl", found), Columns(text="a", pair="b", label="y")
    splits = opened(tmp_path / "ranking", examples="ranking", train_set=mine, columns=named)
    assert {record.relevance for record in splits.test.examples} == {(0, 1)}
    splits = opened(tmp_path / "text", examples="text", train_set=mine, columns=named)
    assert {len(record.labels) for record in splits.test.examples} == {1}


def test_a_query_may_have_negatives_alone_but_not_every_one_of_test(tmp_path):
    found = [{"text": row["text"], "pair": f"{row['text']} 1", "label": i % 3 > 0}
             for i, row in enumerate(rows())]  # fmt: skip
    mine = jsonl(tmp_path / "m.jsonl", found)
    splits = opened(tmp_path / "out", examples="ranking", train_set=mine, candidates=4)
    lengths = Counter(record.relevance for split in splits.parts for record in split.examples)
    assert lengths == {(0,): 40, (1, 0, 0, 0): 80}  # those that can be ranked wrong are given others
    found = [{**row, "label": 0} for row in found]
    with pytest.raises(DataError, match="the test set has no labels"):
        opened(tmp_path / "no", examples="ranking", train_set=jsonl(tmp_path / "m.jsonl", found))


def test_a_negative_a_column(tmp_path):
    found = [{"anchor": f"who {row['text']}", "positive": row["text"], "negative_1": "No.",
              "negative_2": "Yes."} for row in rows()]  # fmt: skip
    splits = opened(tmp_path / "out", train_set=jsonl(tmp_path / "m.jsonl", found))
    for record in splits.test.examples:
        assert record.candidates == (record.text.removeprefix("who "), "No.", "Yes.")
        assert record.relevance == (1, 0, 0)


def test_empty_passages_and_copies_do_not_move_the_gains_of_others(tmp_path):
    found = [{"query": f"who {row['text']}", "candidates": ["", "b", row["text"], "b", "c"],
              "relevance": [3, 1, 2, 0, 0]}
             for row in rows()]  # fmt: skip
    splits = opened(tmp_path / "out", train_set=jsonl(tmp_path / "m.jsonl", found))
    for record in splits.test.examples:
        assert record.candidates == ("b", record.text.removeprefix("who "), "c")
        assert record.relevance == (1, 2, 0)


@pytest.mark.parametrize(
    ("examples", "row", "allowed"),
    [
        ("text", {"tokens": ["a"], "tags": ["O"]}, "text and label"),
        ("text", {"query": "a", "passage": "b", "label": 1}, "text and label"),
        ("tagging", {"text": "a", "label": "x"}, "tokens and tags"),
        ("ranking", {"text": "a", "label": "x"}, "query with positive"),
        ("answering", {"question": "a", "answers": ["b"], "label": 1}, "question, context and answers"),
    ],
)
def test_columns_of_another_kind_of_model_are_refused(examples, row, allowed, tmp_path):
    with pytest.raises(DataError, match=f"(?s)for this kind of model.*{', '.join(row)}.*{allowed}"):
        opened(tmp_path / "no", examples=examples, train_set=jsonl(tmp_path / "m.jsonl", [row] * 20))


@pytest.mark.parametrize(
    "columns", [("question", "sentence"), ("question1", "question2"), ("question", "context")]
)
def test_pairs_of_texts_as_published_sets_call_them(columns, tmp_path):
    found = [
        {columns[1]: row["text"], columns[0]: f"who {row['text']}?", "label": i % 2}
        for i, row in enumerate(rows())
    ]
    splits = opened(tmp_path / "out", examples="text", train_set=jsonl(tmp_path / "m.jsonl", found))
    for record in splits.test.examples:
        assert record.text == f"who {record.pair}?"


def test_every_query_without_negatives_gets_some(tmp_path):
    """One that has its own does not leave the others with a ranking that cannot be wrong."""
    found = [{"query": row["text"].replace("beside", "near"), "positive": row["text"],
              "negatives": ["No."] if i % 2 else []} for i, row in enumerate(rows())]  # fmt: skip
    splits = opened(tmp_path / "out", train_set=jsonl(tmp_path / "mine.jsonl", found), candidates=6)
    for record in splits.test.examples:
        own = record.line % 2 == 0
        assert record.relevance == ((1, 0) if own else (1, 0, 0, 0, 0, 0))


def test_columns_that_the_first_row_lacks_and_names_in_capitals_are_read(tmp_path):
    found = [{"Query": row["text"], "POSITIVE": f"{row['text']} 1", "Negatives": ["No."]} for row in rows()]
    del found[0]["Negatives"]
    splits = opened(tmp_path / "out", train_set=jsonl(tmp_path / "mine.jsonl", found))
    assert {record.candidates[1:] for record in splits.test.examples if record.line > 1} == {("No.",)}


def test_queries_without_negatives_get_the_nearest_passages_of_others(tmp_path):
    found = [{"query": row["text"].replace("beside", "near"), "positive": row["text"]} for row in rows()]
    splits = opened(tmp_path / "out", train_set=jsonl(tmp_path / "mine.jsonl", found), candidates=6)
    of_test = {record.candidates[0] for record in splits.test.examples}
    for record in splits.test.examples:
        assert record.relevance == (1, 0, 0, 0, 0, 0)
        assert len(set(record.candidates)) == 6
        assert set(record.candidates) <= of_test  # no passage of another split


def test_answers_in_contexts(tmp_path):
    found = []
    for i, row in enumerate(rows(60)):
        place = row["text"].split()[-2]
        answers = {"text": [place], "answer_start": [row["text"].index(place)]}
        found += [{"question": f"Where {k} {i}?", "context": row["text"], "answers": answers} for k in "ab"]
    splits = opened(tmp_path / "out", train_set=jsonl(tmp_path / "mine.jsonl", found))
    for record in splits.test.examples:
        [(start, text)] = record.answers
        assert record.pair[start : start + len(text)] == text
    assert not {r.pair for r in splits.test.examples} & {r.pair for r in splits.train.examples}
    for key, inner in (("answer", lambda text: text), ("answers", lambda text: {"text": text})):
        flat = [{"question": r["question"], "context": r["context"], key: inner(r["answers"]["text"][0])}
                for r in found]  # fmt: skip
        again = opened(tmp_path / key, train_set=jsonl(tmp_path / "flat.jsonl", flat))
        assert again.test.examples == splits.test.examples
    squad = {"data": [{"title": "t", "paragraphs": [
        {"context": r["context"], "qas": [{"id": i, "question": r["question"], "answers": [
            {"text": r["answers"]["text"][0], "answer_start": r["answers"]["answer_start"][0]}]}]}
        for i, r in enumerate(found)]}]}  # fmt: skip
    (tmp_path / "squad.json").write_text(json.dumps(squad))
    nested = opened(tmp_path / "nested", train_set=TrainingSet(source=f"path:{tmp_path}/squad.json"))
    assert nested.test.examples == splits.test.examples
    found[9] = {**found[9], "answers": {**found[9]["answers"], "answer_start": [3]}}
    with pytest.raises(DataError, match=r"mine.jsonl:10: the answer is not where"):
        opened(tmp_path / "no", train_set=jsonl(tmp_path / "mine.jsonl", found))


# ---------------------------------------------------------------- formats


def _csv(path, found, delimiter=","):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(found)


def _parquet(path, found):
    parquet.write_table(pyarrow.Table.from_pylist(found), path)


def _gzip(path, found):
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in found).encode()))


def _arff(path, found):
    quoted = (row["text"].replace("'", "\\'") for row in found)
    body = "\n".join(f"'{text}',{row['label']}" for text, row in zip(quoted, found, strict=True))
    head = "@relation r\n@attribute text string\n@attribute label {sad,calm,glad}\n@data\n% note\n"
    path.write_text(head + body)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("m.csv", _csv),
        ("m.tsv", lambda path, found: _csv(path, found, "\t")),
        ("m.parquet", _parquet),
        ("m.json", lambda path, found: path.write_text(json.dumps(found))),
        ("m.jsonl.gz", _gzip),
        ("m.arff", _arff),
    ],
)
def test_every_format_gives_the_same_examples(name, write, tmp_path):
    found = rows()
    found[0]["text"] += '\nIt\'s “new”, "quoted" and, yes, long.'
    if name.endswith("arff"):
        found[0]["text"] = found[0]["text"].replace("\n", " ")
    write(tmp_path / name, found)
    got = opened(tmp_path / "out", train_set=TrainingSet(source=f"path:{tmp_path / name}"))
    wanted = opened(tmp_path / "ref", train_set=jsonl(tmp_path / "ref.jsonl", found))
    for part, other in zip(got.parts, wanted.parts, strict=True):
        assert [(r.text, r.labels) for r in part.examples] == [(r.text, r.labels) for r in other.examples]
    assert max(record.line for split in got.parts for record in split.examples) >= 120


def test_columns_by_name_and_tables_without_header(tmp_path):
    found = [{"id": i, "body": row["text"], "mood": row["label"]} for i, row in enumerate(rows())]
    _csv(tmp_path / "mine.csv", found)
    mine = TrainingSet(source=f"path:{tmp_path}/mine.csv")
    splits = opened(tmp_path / "out", train_set=mine, columns=Columns(text="body", label="mood"))
    with pytest.raises(DataError, match=r"mine.csv has no columns of examples") as error:
        opened(tmp_path / "no", train_set=mine)
    assert "id, body, mood" in str(error.value)
    with pytest.raises(DataError, match=r"has no column 'boddy'(?s:.)*did you mean 'body'"):
        opened(tmp_path / "no", train_set=mine, columns=Columns(text="boddy", label="mood"))
    lines = (tmp_path / "mine.csv").read_text().split("\n", 1)[1]
    (tmp_path / "bare.csv").write_text(lines)
    bare = TrainingSet(source=f"path:{tmp_path}/bare.csv", header=["id", "text", "label"])
    again = opened(tmp_path / "bare", train_set=bare)
    assert [r.text for r in again.test.examples] == [r.text for r in splits.test.examples]
    with pytest.raises(DataError, match=r"the first line is no header"):
        opened(tmp_path / "no", train_set=TrainingSet(source=f"path:{tmp_path}/bare.csv"))


def test_a_txt_is_read_by_what_is_in_it(tmp_path):
    mine = jsonl(tmp_path / "mine.txt", rows())
    splits = opened(tmp_path / "out", train_set=mine)
    assert splits.test.examples == opened(
        tmp_path / "again", train_set=jsonl(tmp_path / "mine.jsonl", rows())
    ).test.examples  # fmt: skip
    words = "".join("".join(f"{word} O\n" for word in row["text"].split()) + "Ada B-X\n\n" for row in rows())
    (tmp_path / "words.txt").write_text(words)
    splits = opened(tmp_path / "words", train_set=TrainingSet(source=f"path:{tmp_path}/words.txt"))
    assert {record.words[-1] for record in splits.test.examples} == {"Ada"}


def test_conll_columns(tmp_path):
    sentences = []
    for i, row in enumerate(rows(60)):
        words = row["text"].split()
        tags = ["O"] * (len(words) - 2) + ["B-LOC", "I-LOC"]
        block = "".join(f"{word} NN {tag}\n" for word, tag in zip(words, tags, strict=True))
        sentences.append(("-DOCSTART- -X- O\n\n" if i % 5 == 0 else "") + block)
    (tmp_path / "train.conll").write_text("\n".join(sentences))
    mine = TrainingSet(source=f"path:{tmp_path}/train.conll")
    splits = opened(tmp_path / "out", train_set=mine, group="document")
    assert splits.names == ("B-LOC", "I-LOC", "O")
    assert sum(len(split.examples) for split in splits.parts) == 60
    assert not {r.group for r in splits.test.examples} & {r.group for r in splits.train.examples}
    text = (tmp_path / "train.conll").read_text().split("\n")
    text[10] = text[10].split()[0]
    (tmp_path / "train.conll").write_text("\n".join(text))
    with pytest.raises(DataError, match=r"train.conll:11 has another number of columns"):
        opened(tmp_path / "no", train_set=mine)


def test_a_folder_of_the_hub(tmp_path):
    data = tmp_path / "hub" / "data"
    data.mkdir(parents=True)
    found = [{"text": row["text"], "label": MOODS.index(row["label"])} for row in rows()]
    shards = {"train-00000-of-00002": found[:40], "train-00001-of-00002": found[40:80]}
    shards |= {"validation-00000-of-00001": found[80:100], "test-00000-of-00001": found[100:]}
    for name, part in shards.items():
        _parquet(data / f"{name}.parquet", part)
    card = """\
        ---
        license: mit
        dataset_info:
          features:
          - name: text
            dtype: string
          - name: label
            dtype:
              class_label:
                names:
                  '0': sad
                  '1': calm
                  '2': glad
        ---
        # Moods
        """
    (tmp_path / "hub" / "README.md").write_text(textwrap.dedent(card))
    whole = TrainingSet(source=f"path:{tmp_path}/hub")
    splits = opened(tmp_path / "out", model(tmp_path / "m", ["glad", "calm", "sad"]), train_set=whole)
    assert [record.text for record in splits.select.examples] == [row["text"] for row in found[80:100]]
    assert [record.text for record in splits.test.examples] == [row["text"] for row in found[100:]]
    assert [record.labels[0] for record in splits.test.examples] == [2 - row["label"] for row in found[100:]]
    assert len(splits.train.examples) + len(splits.calibration.examples) == 80
    unlabelled = [{**row, "label": -1} for row in found[100:]]
    _parquet(data / "test-00000-of-00001.parquet", unlabelled)
    with pytest.raises(DataError, match=r"(?s)parquet:1: the text has no label.*validation-\*"):
        opened(tmp_path / "no", train_set=whole)
    other = TrainingSet(source=whole.source, files="data/validation-*")
    again = opened(tmp_path / "again", train_set=whole, test_set=other)
    assert [record.text for record in again.test.examples] == [row["text"] for row in found[80:100]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.jsonl", b'{"text": "a", "label": "x"}\n{"text": "b", "label": "y"\n', r"m.jsonl:2 is no JSON"),
        ("m.jsonl", b'{"text": "a", "label": "x"}\n[1, 2]\n', r"m.jsonl:2 is no JSON object"),
        ("m.jsonl", b'{"text": "a", "label": "x"}\n{"text": "b"}\n', r"m.jsonl:2: the text has no label"),
        ("m.jsonl", b'{"text": ["a"], "label": "x"}\n', r"m.jsonl:1: text is no text"),
        ("m.jsonl", b'{"text": " ", "label": "x"}\n', r"every row of m.jsonl is without text"),
        ("m.jsonl", b"", r"m.jsonl has no row"),
        ("m.jsonl", b'{"text": "a \\ud83d", "label": "x"}\n', r"m.jsonl:1 has half a letter"),
        ("m.json", b'[{"text": "a \\ud83d", "label": "x"}]', r"m.json has half a letter"),
        ("m.jsonl", b'{"tokens": ["a", null], "tags": ["O", "O"]}', r"m.jsonl:1: tokens has what is no word"),
        ("m.jsonl", b'{"query": "a", "positive": {"text": "b"}}', r"m.jsonl:1: positive is no passage"),
        ("m.jsonl", b'{"question": "a", "context": "b", "answers": [{"at": 1}]}', r"l:1: answers has no"),
        ("m.jsonl", b'{"question": "a", "context": "b", "answer": "b", "start": "x"}', r"1: answer has no"),
        ("m.jsonl", b'{"question": "a", "context": "b", "answers": {"text": ["b", "c"], "answer_start": 0}}',
         r"m.jsonl:1: answers has no answers"),
        ("m.json", b'{"data": [{"paragraphs": [{"context": "b", "qas": [{"question": "a", "answers": "b"}]}]}'
         b"]}",
         r"(?s)layout of SQuAD.*string indices must be integers(?!.*missing)"),
        ("m.csv", b"text,label\ngood,x\nbad, very,y\n", r"m.csv:3 has another number of fields"),
        ("m.csv", b'text,label\n"good\nday",x\n"bad,y\n', r"m.csv:4 is no row of a csv table"),
        ("m.csv", b"text,text\na,b\n", r"m.csv has no header"),
        ("m.csv", b"text,label\ncaf\xc3\xa9,x\nna\xefve,y\n", r"(?s)csv:3 is not.* byte 21.* 2 of.* 0xef"),
        ("m.csv", b"\xef\xbb\xbftext,label\na,x\nb\x80,y\n", r"m.csv:3 is not utf-8 text"),
        ("m.csv", b"text,label\na,['x' 'y']\nb,x\n", r"m.csv:2: label is a list without commas"),
        ("m.arff", b"@relation r\n@attribute text string\n@data\n'a\n", r"m.arff:4 does not have"),
        ("m.arff", b"@relation r\n", r"m.arff is no ARFF file"),
        ("m.parquet", b"PAR1", r"m.parquet is damaged"),
        ("m.gz", b"x", r"does not tell its format"),
        ("m.txt", b"text,label\ngood,x\nbad,y\n", r"neither name nor beginning of m.txt tells"),
        ("m.txt", b"text\tlabel\ngood\tx\nbad\ty\n", r"neither name nor beginning of m.txt tells"),
        ("m.jsonl.gz", b"\x1f\x8b\x08\x00", r"cannot read"),
    ],
)  # fmt: skip
def test_what_is_broken_is_told_with_its_line(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        opened(tmp_path / "out", train_set=TrainingSet(source=f"path:{tmp_path / name}"))


@pytest.mark.parametrize("written", [json.dumps, str])
def test_lists_in_the_fields_of_a_table_are_lists(written, tmp_path):
    """As JSON, or as pandas writes Python's."""

    def table(name, found):
        _csv(tmp_path / name, [{key: each if key in ("text", "query") else written(each)
                                for key, each in row.items()} for row in found])  # fmt: skip
        return TrainingSet(source=f"path:{tmp_path / name}")

    found = [
        {"text": row["text"], "label": [row["label"], "it's"][: 1 + i % 2]} for i, row in enumerate(rows())
    ]
    mine = table("labels.csv", found)
    expected = opened(tmp_path / "expected", train_set=jsonl(tmp_path / "m.jsonl", found))
    assert opened(tmp_path / "labels", train_set=mine).test.examples == tuple(
        replace(record, line=record.line + 1) for record in expected.test.examples
    )
    words = [{"tokens": row["text"].split(), "tags": ["B-X", *["O"] * (len(row["text"].split()) - 1)]}
             for row in rows()]  # fmt: skip
    mine = table("words.csv", words)
    for record in opened(tmp_path / "tags", train_set=mine).test.examples:
        assert list(record.words) == words[record.line - 2]["tokens"]
    queries = [{"query": row["text"], "candidates": [f"[{row['text']}]", "No."], "relevance": [1, 0]}
               for row in rows()]  # fmt: skip
    mine = table("queries.csv", queries)
    for record in opened(tmp_path / "ranking", train_set=mine).test.examples:
        assert record.candidates == (f"[{record.text}]", "No.")


def test_quotes_may_be_letters_like_others(tmp_path):
    body = "".join(f'"{row["text"]}\t{row["label"]}\n' for row in rows())
    (tmp_path / "m.tsv").write_text("text\tlabel\n" + body)
    mine = TrainingSet(source=f"path:{tmp_path}/m.tsv")
    with pytest.raises(DataError, match="quotes=false"):
        opened(tmp_path / "no", train_set=mine)
    mine.quotes = False
    assert opened(tmp_path / "out", train_set=mine).test.examples[0].text.startswith('"The')


def test_an_empty_text_is_left_out_and_counted(tmp_path):
    found = rows()
    found[4]["text"] = ""
    splits = opened(tmp_path / "out", train_set=jsonl(tmp_path / "mine.jsonl", found))
    assert sum(len(split.examples) for split in splits.parts) == 119
    assert manifest(tmp_path / "out")["dropped"]["train"]["empty"] == 1


@pytest.mark.slow
def test_a_file_larger_than_memory_is_read_by_rows(tmp_path):
    """300 MB of rows in a process that takes half of it."""
    words = ["".join(random.Random(i).choices("abcdefghij", k=18)) for i in range(5000)]
    with (tmp_path / "big.jsonl").open("w") as file:
        for i in range(200_000):
            text = " ".join(words[i * k % 4999] for k in range(1, 80))
            file.write(json.dumps({"text": f"{text} {i}", "label": MOODS[i % 3]}) + "\n")
    code = f"""
        import resource
        from pathlib import Path
        from compress.config.records import RecordData, TrainingSet
        from compress.data import load_splits, open_splits
        mine = TrainingSet(source="path:{tmp_path}/big.jsonl")
        idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        few = dict(train=200, test=100, select=100, calibration=100)
        open_splits(RecordData(train_set=mine, **few), Path("{tmp_path}/out"))
        examples = load_splits(Path("{tmp_path}/out")).train.examples
        print(len(examples), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - idle)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    examples, more = map(int, done.stdout.split())
    assert examples > 100
    assert more < 160_000, more
