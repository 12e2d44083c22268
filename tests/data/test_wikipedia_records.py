"""Mentions and passages out of a MediaWiki dump, and news out of Weka's files."""

import json
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from compress.config.records import RecordData, RecordFormat, TrainingSet
from compress.data import load_splits, open_splits
from compress.data.bm25 import best_passages
from compress.data.readers import open_table
from compress.data.readers.wikipedia import tagged
from compress.data.retrieval import asked
from compress.data.text import ANCHOR, Document, strip_markup

CONF = Path(__file__).resolve().parents[2] / "conf" / "data"
WIKITEXT = (
    "\n'''Anarchism''' is a [[political philosophy]] that holds [[ruling class]]es to be "
    "[[State (polity)|states]], said Mr. Kropotkin.\n"
    "It has {{convert|3|km}} of [[road]] in it all. [[File:x.png|thumb|A [[cat]] there.]] "
    "No link stands in this sentence here.\n"
)


def test_links_are_tagged_by_their_words_endings_included():
    text = strip_markup(WIKITEXT, anchors=True)
    [(tokens, tags)] = tagged(Document(title="A", text=text))
    found = [(word, tag) for word, tag in zip(tokens, tags, strict=True) if tag != "O"]
    assert found == [
        ("political", "B-MENTION"),
        ("philosophy", "I-MENTION"),
        ("ruling", "B-MENTION"),
        ("classes", "I-MENTION"),
        ("states", "B-MENTION"),
    ]
    assert tokens[-3:] == ["Mr", ".", "Kropotkin"] or tokens[-4:] == ["Mr", ".", "Kropotkin", "."]
    plain = strip_markup(WIKITEXT)
    assert not set(ANCHOR) & set(plain)
    assert text.translate(dict.fromkeys(map(ord, ANCHOR))) == plain


def test_the_second_half_of_a_paragraph_is_asked_for_by_each_sentence_of_the_first():
    lines = [f"Sentence {i} says some more of it than others do." for i in range(5)]
    text = f"{' '.join(lines)}\nToo short. It is.\n{lines[0]}"
    wanted = [(line, " ".join(lines[3:])) for line in lines[:3]]
    assert list(asked(Document(title="A", text=text))) == wanted


def test_rows_name_their_article(tmp_path):
    pages = "".join(
        f"<page><title>T{i}</title><ns>0</ns><revision><text>{WIKITEXT}</text></revision></page>"
        for i in range(2)
    )
    (tmp_path / "dump.xml").write_text(f"<mediawiki>{pages}</mediawiki>")
    config = TrainingSet(source="path:x", format=RecordFormat.wikipedia_mentions)
    table = open_table(tmp_path / "dump.xml", config)
    assert table.columns == ("tokens", "tags", "document")
    assert [(line, row["document"]) for line, row in table.rows()] == [(1, "T0"), (2, "T1")]


def test_bm25_ranks_by_shared_rare_words():
    passages = ["the cat sat on the mat", "the dog ran", "a cat and a dog", "the the the the"]
    best = best_passages(["cat mat", "dog", "the dog ran away"], passages, 2)
    assert best[:, 0].tolist() == [0, 1, 1]
    assert best.shape == (3, 2)


def test_of_passages_with_the_same_word_the_short_one_is_first_and_equal_ones_keep_their_order():
    assert best_passages(["cat"], ["cat dog", "cat", "bird cat"], 3).tolist() == [[1, 0, 2]]


def opened(name, folder, **changes):
    raw = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    raw.pop("defaults")
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RecordData), raw, changes))
    open_splits(config, folder)
    return load_splits(folder)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "about"), [("corn", 24), ("grain", 57)])
def test_news_of_reuters(name, about, tmp_path):
    splits = opened(f"reuters_{name}", tmp_path / "out")
    assert splits.names == ("other", name)
    labels = json.loads((tmp_path / "out" / "manifest.json").read_text())["splits"]["test"]["labels"]
    assert labels == {"other": 602 - about, name: about}  # two of 604 are copies
    assert splits.test.examples[0].text.startswith(
        "ASIAN EXPORTERS FEAR DAMAGE FROM U.S.-JAPAN RIFT Mounting"
    )
    assert "\\n" not in splits.test.examples[0].text
    weights = splits.class_weights()
    assert weights[1] > 5 * weights[0]


@pytest.mark.slow
def test_mentions_and_passages_of_the_published_dump(tmp_path):
    mentions = opened("wikipedia_mentions", tmp_path / "mentions")
    assert mentions.names == ("B-MENTION", "I-MENTION", "O")
    assert len(mentions.test.examples) > 2000
    passages = opened("wikipedia_passages", tmp_path / "passages")
    assert len(passages.test.examples) > 2000
    good = [sum(map(bool, record.relevance)) for record in passages.test.examples]
    of_test = {
        passage for record, count in zip(passages.test.examples, good, strict=True)
        for passage in record.candidates[:count]
    }  # fmt: skip
    for record, count in zip(passages.test.examples, good, strict=True):
        assert record.relevance == (1,) * count + (0,) * (32 - count)
        assert set(record.candidates) <= of_test
    assert 0 < sum(count > 1 for count in good) < 0.01 * len(good)  # a sentence that several articles have
    for splits in (mentions, passages):
        assert not {r.group for r in splits.test.examples} & {r.group for r in splits.train.examples}
