"""Readers of unlabelled text, and the cutting of documents into sentences and passages."""

import bz2
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from xml.etree import ElementTree

import mwparserfromhell
from mwparserfromhell import nodes

from compress.config.data import TextFile, TextFormat
from compress.config.records import RecordSet
from compress.data.readers import open_table
from compress.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Document:
    """A document: `text` has one paragraph a line, with single spaces between words."""

    title: str
    text: str


def read_documents(path: Path, corpus: TextFile) -> list[Document]:
    """All documents of a file. Raises DataError when it is not in the corpus's format or holds no text."""
    documents = list(_READERS[corpus.format](path, corpus))
    if not documents:
        raise DataError(
            f"{path.name} holds no text",
            found=f"{path.stat().st_size} bytes, no document",
            allowed=corpus.format.value,
            next="check the file and its format",
        )
    return documents


def read_text(path: Path, encoding: str) -> str:
    """A whole text file without its byte order mark; raises DataError when it is not in `encoding`."""
    try:
        return path.read_text(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path.name} is not {encoding} text",
            found=f"{error.reason} at byte {error.start}",
            next="set its encoding, e.g. encoding=latin-1",
        ) from None
    except LookupError:
        raise DataError(
            f"unknown encoding of {path.name}", found=encoding, allowed="utf-8, latin-1, ..."
        ) from None
    except OSError as error:
        raise DataError(f"cannot read {path}", found=error.strerror, next="check its permissions") from None


def _read_lines(path: Path, corpus: TextFile) -> Iterator[Document]:
    # Not splitlines(): form feeds and Unicode separators may stand within a document.
    for line in read_text(path, corpus.encoding).split("\n"):
        if text := " ".join(line.split()):
            yield Document(title="", text=text)


def _read_table(path: Path, corpus: TextFile) -> Iterator[Document]:
    """Line breaks within a text part paragraphs."""
    table = open_table(path, RecordSet(source=str(path), encoding=corpus.encoding))
    if corpus.column not in table.columns:
        raise DataError(
            f"{path.name} has no column {corpus.column!r}",
            allowed=", ".join(table.columns),
            next="name it: column=... beside the corpus's source",
        )
    for line, row in table.rows():
        text = row.get(corpus.column)
        if text is not None and not isinstance(text, str):
            raise DataError(f"{table.at(line)} has no text in {corpus.column}", found=repr(text)[:60])
        paragraphs = (" ".join(each.split()) for each in (text or "").split("\n"))
        if whole := "\n".join(filter(None, paragraphs)):
            yield Document(title="", text=whole)


# ---------------------------------------------------------------- MediaWiki


def _read_mediawiki(path: Path, corpus: TextFile) -> Iterator[Document]:
    """The XML names its own encoding."""
    return read_articles(path)


def read_articles(path: Path, anchors: bool = False) -> Iterator[Document]:
    """Articles of a dump, one at a time: no redirects, no talk, user or template pages.

    `anchors` as in `strip_markup`. Raises DataError for what is no dump.
    """
    try:
        with _opened(path) as file:
            for title, wikitext, dropped in _articles(file):
                if text := strip_markup(wikitext, dropped, anchors):
                    yield Document(title=title, text=text)
    except ElementTree.ParseError as error:
        raise DataError(
            f"{path.name} is not a MediaWiki XML dump", found=error, allowed="XML, or XML in bz2"
        ) from None
    except (OSError, EOFError) as error:
        raise DataError(f"{path.name} is damaged", found=error, next="download it again") from None


def _opened(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        packed = file.read(3) == b"BZh"
    return bz2.open(path) if packed else path.open("rb")


def _articles(file: IO[bytes]) -> Iterator[tuple[str, str, frozenset[str]]]:
    """Title, wikitext and the lower-case names of the file and category namespaces."""
    dropped = {"file", "image", "category", "media"}
    root: Any = None
    for event, element in ElementTree.iterparse(file, events=("start", "end")):
        if root is None:
            root = element
        tag = element.tag.rpartition("}")[2]
        if event == "start":
            continue
        if tag == "namespace" and element.get("key") in ("-2", "6", "14"):
            dropped.add((element.text or "").lower())
        if tag == "page":
            text = element.findtext("{*}revision/{*}text") or ""
            redirect = element.find("{*}redirect") is not None or text[:9].upper() == "#REDIRECT"
            if not redirect and element.findtext("{*}ns", "0") == "0":
                yield element.findtext("{*}title") or "", text, frozenset(dropped)
            root.clear()  # else the whole dump stays in memory


_INVISIBLE = frozenset(
    ("ref", "references", "gallery", "timeline", "table", "imagemap", "syntaxhighlight", "source", "pre")
)
# What a removed template, formula or link leaves behind in the middle of a sentence.
_HOLE = "\ufffc"
_REFERENCES = re.compile(  # templates that no reader misses
    r"(refn|efn|sfnp?|harvnb|cn|cite|citation|fact|rp|anchor|clarify|when|who|which)\b", re.IGNORECASE
)


ANCHOR = ("\ue000", "\ue001")  # private characters, which stand around what links


def strip_markup(
    wikitext: str, dropped: Iterable[str] = ("file", "image", "category", "media"), anchors: bool = False
) -> str:
    """Whole sentences, a paragraph a line. Templates, tables, references, headings and lists are left out.

    A sentence with a hole where a template or a formula stood is dropped with it: what is left of "an area
    of {{convert|652000|km2}}" is no English. `dropped` are link prefixes whose links vanish, in lower case.
    With `anchors`, `ANCHOR` stands around the texts of links to articles.
    """
    code = mwparserfromhell.parse(wikitext, skip_style_tags=True)
    text = "".join(_visible(code, frozenset(dropped), ANCHOR if anchors else ("", "")))
    lines = (" ".join(line.split()) for line in text.split("\n"))
    kept = (_whole_sentences(line) for line in lines if line and line[0] not in "*#:;|!{=")
    return "\n".join(line for line in kept if line)


def _visible(code: Any, dropped: frozenset[str], marks: tuple[str, str] = ("", "")) -> Iterator[str]:
    for node in code.nodes:
        if isinstance(node, nodes.Text):
            yield node.value
        elif isinstance(node, nodes.HTMLEntity):
            yield node.normalize()
        elif isinstance(node, nodes.Wikilink):
            prefix, colon, _ = str(node.title).partition(":")
            if not (colon and prefix.strip().lower() in dropped):
                yield marks[0]
                yield from _visible(node.title if node.text is None else node.text, dropped)
                yield marks[1]
        elif isinstance(node, nodes.ExternalLink):
            if node.title is not None:
                yield from _visible(node.title, dropped)
        elif isinstance(node, nodes.Tag):
            tag = str(node.tag).strip().lower()
            if node.wiki_markup is not None and tag in ("li", "dt", "dd"):
                yield node.wiki_markup  # so that the line is known as a list's
            elif tag == "br":
                yield " "
            elif tag in ("math", "chem", "score", "code"):
                yield _HOLE
            elif tag not in _INVISIBLE and node.contents is not None:
                edge = "\n" if tag in ("blockquote", "div", "p", "poem", "center") else ""
                yield edge
                yield from _visible(node.contents, dropped, marks)
                yield edge
        elif isinstance(node, nodes.Template) and not _REFERENCES.match(str(node.name).strip()):
            yield _HOLE
        elif isinstance(node, nodes.Heading):
            yield "\n"


def _whole_sentences(line: str) -> str:
    line = re.sub(rf"^[\s{_HOLE}]+|[\s{_HOLE}]+$", "", line)  # infoboxes and the like around a paragraph
    sentences = split_sentences(line)
    line = " ".join(sentence for sentence in sentences if _HOLE not in sentence and is_sentence(sentence))
    line = re.sub(r"\s*\([\s,;]*\)", "", line)  # what a reference in brackets leaves
    return re.sub("'{2,}", "", line).strip()  # bold and italics, which the parser leaves alone


_READERS: dict[TextFormat, Callable[[Path, TextFile], Iterator[Document]]] = {
    TextFormat.lines: _read_lines,
    TextFormat.table: _read_table,
    TextFormat.mediawiki: _read_mediawiki,
}


# ---------------------------------------------------------------- sentences and passages

_END = re.compile(r"[.!?…]+[\"'”’)\]]*\s+|[。！？]+[」』”’）]*\s*")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\"'“‘\[-])(?:[^\W\d_]|(?:[^\W\d_]\.)+[^\W\d_]"  # initials: J. and U.S.
    r"|Mr|Mrs|Ms|Dr|Prof|St|Sr|Jr|Gen|Col|Sen|Rep|Gov|Lt|Capt|Rev|Hon|Mt|Ft|No|Nos|vol|pp?|ed|eds|ca?|cf|etc"
    r"|vs|v|al|approx|Inc|Ltd|Co|Corp|Bros|fl|Fig|viz|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\.$"
)


def split_sentences(text: str) -> list[str]:
    """Sentences of a paragraph, in order; nothing but white space between them is lost.

    It splits after a full stop that no abbreviation or initial precedes and no lower-case letter follows.
    """
    sentences, start = [], 0
    for end in _END.finditer(text):
        rest = text[end.end() :].lstrip("\"'“‘([")
        if rest[:1].islower() or _ABBREVIATION.search(text[max(start, end.start() - 16) : end.start() + 1]):
            continue
        sentences.append(text[start : end.end()].strip())
        start = end.end()
    sentences.append(text[start:].strip())
    return [sentence for sentence in sentences if sentence]


def text_key(text: str) -> str:
    """The hash by which two texts count as the same: letter case and white space do not matter."""
    return hashlib.sha256(" ".join(text.lower().split()).encode()).hexdigest()


def words(text: str) -> int:
    return len(text.split())


def is_sentence(text: str) -> bool:
    """Whether it ends as a sentence does: headings, list items and captions do not."""
    return text.rstrip("\"'”’)]」』）" + _HOLE).endswith((".", "!", "?", "…", "。", "！", "？"))


def passages(sentences: Sequence[str], targets: Iterable[int], max_words: int) -> list[str]:
    """Join neighbouring sentences to passages of about as many words as the next of `targets`.

    A passage ends with the sentence that reaches its target, or before the one that would take it over
    `max_words`; a sentence longer than that is left out.
    """
    found: list[str] = []
    goals = iter(targets)
    current: list[str] = []
    length, goal = 0, next(goals)
    for sentence in sentences:
        more = words(sentence)
        if more > max_words:
            continue
        if current and length + more > max_words:
            found.append(" ".join(current))
            current, length, goal = [], 0, next(goals)
        current.append(sentence)
        length += more
        if length >= goal:
            found.append(" ".join(current))
            current, length, goal = [], 0, next(goals)
    if current:
        found.append(" ".join(current))
    return found
