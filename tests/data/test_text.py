"""Readers, sentences and passages."""

import bz2
from itertools import pairwise, repeat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.config.data import TextFile, TextFormat
from compress.data.text import is_sentence, passages, read_documents, split_sentences, strip_markup, text_key
from compress.errors import DataError

DUMP = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/"><siteinfo><namespaces>
<namespace key="0" /><namespace key="6">Datei</namespace><namespace key="14">Kategorie</namespace>
</namespaces></siteinfo>
<page><title>Albedo</title><ns>0</ns><revision><text>'''Albedo''' is a [[ratio|share]] of light.
[[Datei:Sun.jpg|thumb|A [[caption]].]][[Kategorie:Light]] It has no unit.</text></revision></page>
<page><title>Moved</title><ns>0</ns><redirect title="Albedo" /><revision><text>Gone.</text></revision></page>
<page><title>Old</title><ns>0</ns><revision><text>#redirect [[Albedo]] Gone.</text></revision></page>
<page><title>Talk:Albedo</title><ns>1</ns><revision><text>Is it?</text></revision></page>
<page><title>Empty</title><ns>0</ns><revision><text /></revision></page>
</mediawiki>"""


@pytest.mark.parametrize("packed", [False, True])
def test_articles_of_a_dump(tmp_path: Path, packed: bool) -> None:
    dump = tmp_path / "dump"
    dump.write_bytes(bz2.compress(DUMP.encode()) if packed else DUMP.encode())
    (article,) = read_documents(dump, TextFile(format=TextFormat.mediawiki))
    assert article.title == "Albedo"
    assert article.text == "Albedo is a share of light.\nIt has no unit."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a MediaWiki XML dump"),
        (b"<mediawiki><page>", "not a MediaWiki XML dump"),
        (b"plain text", "not a MediaWiki XML dump"),
        (bz2.compress(DUMP.encode())[:-20], "damaged"),
        (b"BZh but not really", "damaged"),
        (b"<mediawiki></mediawiki>", "holds no text"),
    ],
)
def test_what_is_no_dump(tmp_path: Path, content: bytes, message: str) -> None:
    dump = tmp_path / "dump"
    dump.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_documents(dump, TextFile(format=TextFormat.mediawiki))


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ("{{Infobox|a=b}} '''A''' is ''good''.", "A is good."),
        ("It rains.<ref>{{cite web|x}} No.</ref> It stops.{{sfn|A|p=1}}", "It rains. It stops."),
        ("An area of {{convert|5|km2}} is small. It is flat.", "It is flat."),
        ("Let <math>x</math> be one. Then stop.", "Then stop."),
        ("== History ==\nIt began.\n\nIt ended.", "It began.\nIt ended."),
        ("{| class=a\n| cell.\n|}\n* An item.\n# Another.\nProse.", "Prose."),
        ("[http://a.b a link] works&nbsp;&amp; more.", "a link works & more."),
        ("The Jews ({{cite quran|1}}).", "The Jews."),
        ("See:<blockquote>To be.</blockquote>So.", "To be.\nSo."),
        ("Caption without end", ""),
        ("", ""),
    ],
)
def test_strip_markup(wikitext: str, text: str) -> None:
    assert strip_markup(wikitext) == text


def test_lines_are_documents(tmp_path: Path) -> None:
    file = tmp_path / "a.cor"
    file.write_bytes(b"One  text.\r\n\n \nAnother\ttext\xe9.")
    assert [d.text for d in read_documents(file, TextFile(format=TextFormat.lines, encoding="latin-1"))] == [
        "One text.",
        "Another texté.",
    ]
    with pytest.raises(DataError, match=r"not utf-8 text(.|\n)*byte 27"):
        read_documents(file, TextFile(format=TextFormat.lines))
    with pytest.raises(DataError, match="unknown encoding"):
        read_documents(file, TextFile(format=TextFormat.lines, encoding="latin-99"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "a.jsonl",
            '{"body": "One  text.\\n\\nIts second paragraph."}\n{"body": null}\n{"body": "Another."}\n',
        ),
        ("a.csv", 'body,n\n"One  text.\n\nIts second paragraph.",1\n,2\nAnother.,3\n'),
    ],
)
def test_rows_of_a_table_are_documents(tmp_path: Path, name: str, content: str) -> None:
    file = tmp_path / name
    file.write_text(content)
    documents = read_documents(file, TextFile(format=TextFormat.table, column="body"))
    assert [each.text for each in documents] == ["One text.\nIts second paragraph.", "Another."]
    with pytest.raises(DataError, match=r"no column 'text'(.|\n)*body"):
        read_documents(file, TextFile(format=TextFormat.table))


def test_a_row_without_text_is_an_error_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "One."}\n{"text": ["Two."]}\n')
    with pytest.raises(DataError, match=r"a.jsonl:2 has no text(.|\n)*Two"):
        read_documents(file, TextFile(format=TextFormat.table))


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_an_empty_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(content)
    with pytest.raises(DataError, match="holds no text"):
        read_documents(file, TextFile(format=TextFormat.lines))


@pytest.mark.parametrize(
    "sentences",
    [
        ["It rains.", "It stops!", "Why?"],
        ["Mr. J. R. Smith of the U.S. Army came.", "He left at 4.30 p.m. on Sunday."],
        ['"Is it?" he asked.', '"Yes."', "(So it was.)", "Then..."],
        ["It costs $1.5 million, e.g. in Dec. 1999.", "2001 was better."],
        ["Дъждът вали.", "Спря ли?"],
        ["雨が降る。", "止んだ。"],
    ],
)
def test_sentences(sentences: list[str]) -> None:
    joined = "".join(sentences) if sentences[0].endswith("。") else " ".join(sentences)
    assert split_sentences(joined) == sentences


@settings(deadline=None)  # the machine may be busy
@given(st.text(alphabet="aB1. !?\"')。é", max_size=80))
def test_splitting_loses_only_white_space(text: str) -> None:
    sentences = split_sentences(text)
    assert "".join("".join(sentences).split()) == "".join(text.split())
    assert all(sentence == sentence.strip() != "" for sentence in sentences)


def test_is_sentence() -> None:
    assert is_sentence('He said "no."')
    assert not is_sentence("Early life")


@settings(deadline=None)  # the machine may be busy
@given(
    st.lists(st.integers(1, 30), max_size=30),
    st.integers(1, 40),
    st.integers(5, 40),
)
def test_passages_keep_order_and_bounds(lengths: list[int], target: int, most: int) -> None:
    sentences = [" ".join([f"{i}"] * n) for i, n in enumerate(lengths)]
    made = passages(sentences, repeat(target), most)
    assert " ".join(made).split() == [w for s in sentences if len(s.split()) <= most for w in s.split()]
    assert all(len(passage.split()) <= most for passage in made)
    for passage, following in pairwise(made):
        first = sum(1 for w in following.split() if w == following.split()[0])
        assert len(passage.split()) >= target or len(passage.split()) + first > most


def test_passages_by_hand() -> None:
    assert passages(["a b", "c d", "e", "f g h i"], iter([3, 1, 9, 9]), 4) == ["a b c d", "e", "f g h i"]


def test_keys_ignore_case_and_white_space() -> None:
    assert text_key("A  Text\n") == text_key("a text")
    assert text_key("a text") != text_key("a text.")


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes("\ufeffOne line.\nAnother.".encode())
    assert [d.text for d in read_documents(file, TextFile(format=TextFormat.lines))] == [
        "One line.",
        "Another.",
    ]
