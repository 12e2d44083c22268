"""Whole documents in disjoint splits, by corpus."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.config.data import Documents, TextFile
from compress.data import input_digests, load_splits, open_splits
from compress.data.documents import beginning
from compress.errors import ConfigError, DataError


def text(name, number):
    return f"{name} number {number} tells of {number * number} rivers."


@pytest.fixture
def config(tmp_path):
    """40 documents of news and 20 of wiki; two of wiki are copies of others, one is short."""
    news = [text("News", i) for i in range(40)]
    wiki = [*(text("Article", i) for i in range(18)), text("NEWS", 3).replace(" ", "  "), text("Article", 0)]
    (tmp_path / "news.txt").write_text("\n".join(news))
    (tmp_path / "wiki.txt").write_text("\n".join([*wiki, "Too short."]))
    return Documents(
        corpora={name: TextFile(source=f"path:{tmp_path}/{name}.txt") for name in ("news", "wiki")},
        test={"news": 8, "wiki": 3},
        select={"news": 4},
        calibration={"wiki": 5, "news": 2},
        train=["wiki"],
        min_words=5,
    )


def opened(config, folder):
    open_splits(config, folder)
    return load_splits(folder)


def test_what_was_asked_for_is_delivered_by_domain(config, tmp_path):
    splits = opened(config, tmp_path / "out")
    assert splits.test.domains == ("news",) * 8 + ("wiki",) * 3
    assert splits.select.domains == ("news",) * 4
    assert splits.calibration.domains == ("wiki",) * 5 + ("news",) * 2
    assert splits.train.domains == ("wiki",) * 10  # 18 articles without 8 of test and calibration
    for split in splits.texts:
        for each, domain in zip(split.texts, split.domains, strict=True):
            assert each.startswith("News" if domain == "news" else "Article")
        assert len(split.documents) == len(set(split.documents))
    everything = [each.lower() for split in splits.texts for each in split.texts]
    assert len(everything) == len(set(everything))
    assert splits.test.examples == splits.test.texts
    facts = splits.facts()
    assert (facts["test"].examples, facts["test"].requested, facts["train"].requested) == (11, 11, None)
    assert splits.test_sets == {"test": splits.test.fingerprint}
    dropped = json.loads((tmp_path / "out" / "manifest.json").read_text())["dropped"]
    assert dropped == {"copies": 2, "short": 1}


def test_one_seed_gives_the_same_bytes_and_another_other_documents(config, tmp_path):
    first, again, other = (
        opened(dataclasses.replace(config, seed=seed), tmp_path / str(i)) for i, seed in enumerate((0, 0, 1))
    )
    assert first == again
    assert set(first.test.texts) != set(other.test.texts)
    for file in (tmp_path / "0").iterdir():
        assert file.read_bytes() == (tmp_path / "1" / file.name).read_bytes()


def test_near_duplicates_of_test_are_told(config, tmp_path):
    sentence = "The council agreed on Tuesday to close the old bridge over the northern river for repairs."
    other = sentence.replace("Tuesday", "tuesdays")
    lines = [f"{text('News', i)} {sentence if i % 2 else other}" for i in range(40)]
    (tmp_path / "news.txt").write_text("\n".join(lines))
    found = opened(config, tmp_path / "out").facts()["test"].near_duplicates
    assert found.examples == 8
    assert found.other_split in ("select", "calibration")


def test_long_documents_are_cut_where_a_paragraph_ends():
    two = "One two three.\nFour five. Six seven eight nine."
    assert beginning(two, 100) == two
    assert beginning(two, 8) == "One two three."
    assert beginning(two, 9) == two
    assert beginning("One two. Three four. Five six.", 5) == "One two. Three four."
    assert beginning("a b c d e", 3) == "a b c"


@given(st.lists(st.lists(st.text("ab.", min_size=1), min_size=1), min_size=1), st.integers(1, 30))
def test_a_beginning_is_one_and_within_bounds(paragraphs, most):
    whole = "\n".join(" ".join(each) for each in paragraphs)
    found = beginning(whole, most)
    assert 0 < len(found.split()) <= most
    assert " ".join(whole.split()).startswith(" ".join(found.split()))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"test": {"news": 41}}, ["split test", "40 documents", "'news'", "at least 41", "data.test.news"]),
        ({"calibration": {"wiki": 16}}, ["split calibration", "15 documents", "data.calibration.wiki"]),
        ({"train": ["news"], "test": {"news": 34}}, ["split train", "take 'news' out of data.train"]),
        ({"min_words": 100}, ["split test", "0 documents of at least 100 words"]),
    ],
)
def test_too_little_text(config, tmp_path, changes, words):
    with pytest.raises(DataError) as caught:
        open_splits(dataclasses.replace(config, **changes), tmp_path / "out")
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test": {}}, "test names no corpus"),
        ({"select": {"nws": 4}}, "select names no corpus"),
        ({"train": ["nws"]}, "train names no corpus"),
        ({"test": {"news": 1}}, r"test.news is out of range(.|\n)*at least 2"),
        ({"select": {"news": 1}}, r"select.news is out of range(.|\n)*at least 2"),
        ({"calibration": {"news": 0}}, r"calibration.news is out of range(.|\n)*at least 1"),
        ({"max_words": 4}, "max_words is out of range"),
    ],
)
def test_a_wrong_configuration(config, changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(config, **changes)


def test_input_digests_follow_the_content(config, tmp_path):
    before = input_digests(config)
    (tmp_path / "wiki.txt").write_text("other")
    after = input_digests(config)
    assert [source for source in before if before[source] != after[source]] == [f"path:{tmp_path}/wiki.txt"]
