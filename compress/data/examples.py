"""Rows of a table to examples, by its layout; what is broken is told with its line."""

import ast
import io
import json
import math
import re
import tokenize
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from compress.data.layouts import Layout
from compress.data.readers import Row, Table
from compress.data.record import Record
from compress.errors import DataError


@dataclass(frozen=True)
class Example:
    """A record whose labels still bear the names that the data has for them."""

    record: Record
    names: tuple[str, ...] = ()
    several: bool = False  # whether a text may have any number of labels


def examples(table: Table, layout: Layout) -> Iterator[Example | None]:
    """Of every row in its order the example, None where its text is empty. DataError has the line."""
    read = _READ[layout.kind]
    for line, row in table.rows():
        found = read(table, line, row, layout)
        if found is not None and layout.group is not None:
            value = row.get(layout.group)
            found = replace(found, record=replace(found.record, group="" if value is None else str(value)))
        yield found


def joined(first: Record, second: Record) -> Record:
    """The passages of two rows of one query, each once: where one row says that it answers, it does."""
    if not first.relevance and not second.relevance:
        return replace(first, candidates=tuple(dict.fromkeys(first.candidates + second.candidates)))
    return replace(first, **_ranked([*_pairs(first), *_pairs(second)]))


def _pairs(record: Record) -> Iterator[tuple[str, float]]:
    return zip(record.candidates, record.relevance, strict=True)


def _ranked(pairs: Sequence[tuple[str, float]]) -> dict[str, Any]:
    gains: dict[str, float] = {}
    for passage, gain in pairs:
        gains[passage] = max(gain, gains.get(passage, 0.0))
    return {"candidates": tuple(gains), "relevance": tuple(gains.values())}


def _text(table: Table, line: int, row: Row, layout: Layout) -> Example | None:
    text = _string(table, line, row, layout, "text")
    pair = _string(table, line, row, layout, "pair") if "pair" in layout.columns else None
    if not text.strip() or (pair is not None and not pair.strip()):
        return None
    names, several = _names(table, line, row, layout)
    return Example(Record(text=text, pair=pair, line=line), names, several)


def _names(table: Table, line: int, row: Row, layout: Layout) -> tuple[tuple[str, ...], bool]:
    """Names of the labels of a text, and whether it may have several."""
    if "label" not in layout.columns:
        return (), False
    column = layout.columns["label"]
    value = _unpacked(table, line, column, row.get(column))
    if isinstance(value, str) and layout.separator is not None:
        value = [each.strip() for each in value.split(layout.separator) if each.strip()]
    several = isinstance(value, list | tuple)
    if value is None or value == "" or (value == -1 and column in table.class_names):
        raise DataError(
            f"{table.at(line)}: the text has no label",
            found=f"{column}: {value!r}",
            next="remove the row; the hub publishes some test sets without labels (-1): take another split, "
            "'data.test_set.files=validation-*' with its data.test_set.source",
        )
    listed: Any = value if several else [value]
    return tuple(_name(table, line, each, column) for each in listed), several


def _name(table: Table, line: int, value: Any, column: str) -> str:
    if isinstance(value, bool):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    names = table.class_names.get(column)
    if names and isinstance(value, int):
        if not 0 <= value < len(names):
            raise DataError(
                f"{table.at(line)}: {column} is of no class",
                found=value,
                allowed=f"0 to {len(names) - 1}: {', '.join(names[:12])}",
            )
        return names[value]
    if not isinstance(value, str | int | float) or (isinstance(value, float) and not math.isfinite(value)):
        raise _wrong(table, line, f"{column} is no label", value, "a name or number")
    return str(value).strip()


def _tagging(table: Table, line: int, row: Row, layout: Layout) -> Example | None:
    words = _list(table, line, layout.columns["words"], row)
    if not words:
        return None
    if strange := [word for word in words if not isinstance(word, str | int | float)]:
        raise _wrong(table, line, f"{layout.columns['words']} has what is no word", strange[0], "strings")
    record = Record(words=tuple(map(str, words)), line=line)
    if "tags" not in layout.columns:
        return Example(record)
    column = layout.columns["tags"]
    tags = _list(table, line, column, row)
    if len(tags) != len(words):
        raise DataError(
            f"{table.at(line)}: tags do not align with words",
            found=f"{len(words)} words, {len(tags)} tags: {' '.join(map(str, words))[:80]}",
            allowed="a tag a word",
        )
    return Example(record, tuple(_name(table, line, tag, column) for tag in tags))


def _ranking(table: Table, line: int, row: Row, layout: Layout) -> Example | None:
    query = _string(table, line, row, layout, "query")
    columns = layout.columns

    def passages_of(*names: str) -> list[str]:
        return [text for name in names for text in _passages(table, line, name, row.get(name))]

    if "candidates" in columns:
        passages = passages_of(columns["candidates"])
        gains = _gains(table, line, columns["relevance"], row) if "relevance" in columns else []
        if "positive" in columns:
            good = passages_of(columns["positive"])
            gains = [float(each in good) for each in passages]
    else:
        positives = passages_of(columns["positive"])
        given = [columns["negatives"]] if "negatives" in columns else []
        negatives = passages_of(*given, *layout.negatives)
        passages = positives + negatives
        gains = [1.0] * len(positives) + [0.0] * len(negatives)
    if gains and len(gains) != len(passages):
        raise DataError(
            f"{table.at(line)}: relevance does not align with candidates",
            found=f"{len(passages)} candidates, {len(gains)} of relevance",
            allowed="a number a candidate, 0 where it does not answer",
        )
    kept = [place for place, text in enumerate(passages) if text.strip()]
    if not query.strip() or (not kept and "positive" not in columns):
        return None
    texts = [passages[place] for place in kept]
    found = _ranked([(passages[place], gains[place]) for place in kept]) if gains else {}
    record = Record(text=query, **{"candidates": tuple(dict.fromkeys(texts)), **found}, line=line)
    if "positive" in columns and not any(record.relevance):
        raise DataError(
            f"{table.at(line)}: the query has no passage that answers it",
            found=query[:80],
            allowed="at least one positive",
            next="remove the query; leave the column of positives out where it is only to calibrate",
        )
    return Example(record)


def _passages(table: Table, line: int, column: str, value: Any) -> list[str]:
    """A text is one passage; what is empty stays, since numbers of relevance may count it. DataError for
    other things."""
    value = _unpacked(table, line, column, value)
    listed = value if isinstance(value, list | tuple) else [value]
    if strange := [each for each in listed if isinstance(each, list | dict | bytes)]:
        raise _wrong(table, line, f"{column} is no passage", strange[0], "a string or a list of strings")
    return ["" if each is None else str(each) for each in listed]


def _gains(table: Table, line: int, column: str, row: Row) -> list[float]:
    value = _unpacked(table, line, column, row.get(column))
    listed = value if isinstance(value, list | tuple) else [value]
    try:
        gains = [float(each) for each in listed]
    except (TypeError, ValueError):
        gains = [math.nan]
    if not all(math.isfinite(each) and each >= 0 for each in gains):
        raise _wrong(table, line, "relevance is no number", value, "0 or above")
    return gains


def _answering(table: Table, line: int, row: Row, layout: Layout) -> Example | None:
    question, context = (_string(table, line, row, layout, role) for role in ("question", "context"))
    if not question.strip() or not context.strip():
        return None
    try:
        given = list(_answers(row, layout))
    except (TypeError, ValueError, KeyError):
        column = layout.columns["answers"]
        allowed = '{"text": ["..."], "answer_start": [7]}, or a text and the column of its start'
        raise _wrong(table, line, f"{column} has no answers", row.get(column), allowed) from None
    answers = []
    for start, text in given:
        begin = context.find(text) if start is None else start
        if begin < 0 or not text or context[begin : begin + len(text)] != text:
            raise DataError(
                f"{table.at(line)}: the answer is not where the context is said to have it",
                found=f"{text[:60]!r} at {start}; there is {context[max(0, begin) :][: len(text)][:60]!r}",
                allowed="text and its start in the context, counted in characters from 0",
            )
        answers.append((begin, text))
    return Example(Record(text=question, pair=context, answers=tuple(dict.fromkeys(answers)), line=line))


def _answers(row: Row, layout: Layout) -> Iterator[tuple[int | None, str]]:
    """Start, None where the data does not tell, and text of each answer: in SQuAD's layouts or flat."""
    value = row.get(layout.columns["answers"]) if "answers" in layout.columns else None
    if isinstance(value, Mapping):
        texts, starts = (_listed(value.get(name)) for name in ("text", "answer_start"))
        yield from zip(starts or [None] * len(texts), texts, strict=True)
    elif isinstance(value, list):
        for each in value:
            yield (each.get("answer_start"), each["text"]) if isinstance(each, Mapping) else (None, str(each))
    elif value:
        start = row.get(layout.columns["start"]) if "start" in layout.columns else None
        yield (None if start in (None, "") else int(str(start))), str(value)


def _listed(value: Any) -> Sequence[Any]:
    """One text, or one number, is a list of itself."""
    return [] if value is None else [value] if isinstance(value, str | int) else value


_READ: dict[str, Callable[[Table, int, Row, Layout], Example | None]] = {
    "text": _text,
    "tagging": _tagging,
    "ranking": _ranking,
    "answering": _answering,
}


# ---------------------------------------------------------------- values


def _wrong(table: Table, line: int, what: str, value: Any, allowed: str) -> DataError:
    return DataError(f"{table.at(line)}: {what}", found=repr(value)[:80], allowed=allowed)


def _string(table: Table, line: int, row: Row, layout: Layout, role: str) -> str:
    value = row.get(layout.columns[role])
    if value is None:
        return ""
    if isinstance(value, list | dict | bytes):
        raise _wrong(table, line, f"{layout.columns[role]} is no text", value, "a string")
    return str(value)


def _list(table: Table, line: int, column: str, row: Row) -> list[Any]:
    """A list as it is, one written as text, or words between spaces."""
    value = _unpacked(table, line, column, row.get(column))
    return value.split() if isinstance(value, str) else list(value or [])


def _unpacked(table: Table, line: int, column: str, value: Any) -> Any:
    """A list that a field of text holds as JSON or Python writes it; all else as it is.

    Raises DataError for one without commas, as numpy prints it, which Python reads as a single string.
    """
    if not isinstance(value, str) or not re.fullmatch(r"\s*\[.*\]\s*", value, re.DOTALL):
        return value
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(value.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list):
            break
    else:
        return value
    tokens = tokenize.generate_tokens(io.StringIO(value.strip()).readline)
    if read is ast.literal_eval and sum(token.type == tokenize.STRING for token in tokens) > len(found):
        raise _wrong(table, line, f"{column} is a list without commas", value, '["one", "two"]')
    return found
