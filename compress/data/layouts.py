"""Rows of a table to examples, by which columns there are; what is broken is told with its line."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from compress.data.readers import Row, Table
from compress.data.record import Record
from compress.errors import DataError, did_you_mean

_USUAL = {  # role -> what such columns are called, in this order of preference
    "text": ("text", "sentence", "premise", "sentence1", "content", "document"),
    "pair": ("pair", "hypothesis", "sentence2", "text_pair"),
    "label": ("label", "labels", "class", "class-att", "category", "intent", "score"),
    "words": ("tokens", "words"),
    "tags": ("tags", "ner_tags", "labels"),
    "query": ("query", "anchor"),
    "positive": ("positive", "positives", "pos"),
    "negatives": ("negatives", "negative", "neg"),
    "candidates": ("candidates", "passages", "passage", "docs"),
    "relevance": ("relevance", "label", "labels"),
    "question": ("question",),
    "context": ("context",),
    "answers": ("answers", "answer"),
    "start": ("answer_start", "start"),
}
_KINDS = {  # kind -> roles that it needs, then its others; the first kind whose needs are met is meant
    "answering": (("question", "context"), ("answers", "start")),
    "ranking": (("query",), ("positive", "negatives", "candidates", "relevance")),
    "tagging": (("words",), ("tags",)),
    "text": (("text",), ("pair", "label")),
}
LABELS = {
    "answering": ("answers",),
    "ranking": ("positive", "relevance"),
    "tagging": ("tags",),
    "text": ("label",),
}


_HEADER = "or where the first line is no header: 'data.train_set.header=[text,label]'"


@dataclass(frozen=True)
class Layout:
    kind: str  # answering, ranking, tagging or text
    columns: Mapping[str, str]  # role -> column
    group: str | None
    separator: str | None  # of several labels in one field

    @property
    def labelled(self) -> bool:
        return any(role in self.columns for role in LABELS[self.kind])


@dataclass(frozen=True)
class Example:
    """A record whose labels still bear the names that the data has for them."""

    record: Record
    names: tuple[str, ...] = ()
    several: bool = False  # whether a text may have any number of labels


def find_layout(
    table: Table, named: Mapping[str, str], group: str | None, separator: str | None, unlabelled: bool = False
) -> Layout:
    """Which column of `table` has which role. `named`: role -> column, of those that the user named.

    `unlabelled`: whether a named column of labels may be missing. Raises DataError for a column that is not
    there, and where none is called as texts usually are.
    """
    for role, column in (*named.items(), ("group", group)):
        optional = unlabelled and any(role in roles for roles in LABELS.values())
        if column is not None and column not in table.columns and not optional:
            setting = "group" if role == "group" else f"columns.{role}"
            raise DataError(
                f"{table.name} has no column {column!r}",
                found=", ".join(table.columns)[:300],
                allowed=did_you_mean(column, table.columns)[:300],
                next=f"data.{setting}=..., {_HEADER}",
            )
    for kind, (needs, others) in _KINDS.items():
        roles = (*needs, *others)
        if named and not set(named) <= set(roles):
            continue
        found = {role: column for role in roles if (column := _column(role, named, table.columns))}
        if all(role in found for role in needs) and _meant(kind, found, named):
            if "candidates" not in found:
                found.pop("relevance", None)
            return Layout(kind, found, group, separator)
    raise DataError(
        f"{table.name} has no columns of examples",
        found=", ".join(table.columns)[:300],
        allowed="text and label; tokens and tags; query and positive; question, context and answers",
        next=f"name them: data.columns.text=... data.columns.label=..., {_HEADER}",
    )


def _column(role: str, named: Mapping[str, str], columns: Sequence[str]) -> str | None:
    if role in named:
        return named[role] if named[role] in columns else None
    taken = set(named.values())
    free = {name.casefold(): name for name in reversed(columns) if name not in taken}
    return next((free[name] for name in _USUAL[role] if name in free), None)


def _meant(kind: str, found: Mapping[str, str], named: Mapping[str, str]) -> bool:
    """Not every table with a column `query` ranks passages."""
    return kind != "ranking" or "positive" in found or "candidates" in found


# ---------------------------------------------------------------- rows


def examples(table: Table, layout: Layout) -> Iterator[Example | None]:
    """Of every row in its order the example, None where its text is empty.

    Neighbouring rows of one query make one example. Raises DataError, with the line.
    """
    read = _READ[layout.kind]
    waiting: Example | None = None
    for line, row in table.rows():
        found = read(table, line, row, layout)
        if found is not None and layout.group is not None:
            value = row.get(layout.group)
            found = replace(found, record=replace(found.record, group="" if value is None else str(value)))
        if found is None or layout.kind != "ranking":
            yield found
        elif waiting is not None and waiting.record.text == found.record.text:
            waiting = replace(waiting, record=_joined(waiting.record, found.record))
        else:
            if waiting is not None:
                yield _checked(table, waiting, layout)
            waiting = found
    if waiting is not None:
        yield _checked(table, waiting, layout)


def _joined(first: Record, second: Record) -> Record:
    """Passages of both rows, each once: where one row says that it answers, it does."""
    if not first.relevance and not second.relevance:
        return replace(first, candidates=tuple(dict.fromkeys(first.candidates + second.candidates)))
    gains: dict[str, float] = {}
    for record in (first, second):
        for passage, gain in zip(record.candidates, record.relevance, strict=True):
            gains[passage] = max(gain, gains.get(passage, 0.0))
    return replace(first, candidates=tuple(gains), relevance=tuple(gains.values()))


def _checked(table: Table, example: Example, layout: Layout) -> Example:
    record = example.record
    if layout.kind == "ranking" and layout.labelled and not any(gain > 0 for gain in record.relevance):
        raise DataError(
            f"{table.at(record.line)}: the query has no passage that answers it",
            found=record.text[:80],
            allowed="at least one positive, or one of relevance above 0",
            next="put the rows of a query one after the other, or remove the query; leave the column of "
            "positives out where it is only to calibrate",
        )
    return example


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
    value = row.get(column)
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
    words = _list(row.get(layout.columns["words"]))
    if not words:
        return None
    if strange := [word for word in words if not isinstance(word, str | int | float)]:
        raise _wrong(table, line, f"{layout.columns['words']} has what is no word", strange[0], "strings")
    record = Record(words=tuple(map(str, words)), line=line)
    if "tags" not in layout.columns:
        return Example(record)
    column = layout.columns["tags"]
    tags = _list(row.get(column))
    if len(tags) != len(words):
        raise DataError(
            f"{table.at(line)}: tags do not align with words",
            found=f"{len(words)} words, {len(tags)} tags: {' '.join(map(str, words))[:80]}",
            allowed="a tag a word",
        )
    return Example(record, tuple(_name(table, line, tag, column) for tag in tags))


def _ranking(table: Table, line: int, row: Row, layout: Layout) -> Example | None:
    query = _string(table, line, row, layout, "query")
    if not query.strip():
        return None
    columns = layout.columns

    def passages_of(role: str) -> tuple[str, ...]:
        return _passages(table, line, columns[role], row.get(columns[role]))

    if "candidates" in columns:
        passages = passages_of("candidates")
        gains = _gains(table, line, row.get(columns["relevance"])) if "relevance" in columns else ()
        if "positive" in columns:
            good = set(passages_of("positive"))
            gains = tuple(float(each in good) for each in passages)
        if gains and len(gains) != len(passages):
            raise DataError(
                f"{table.at(line)}: relevance does not align with candidates",
                found=f"{len(passages)} candidates, {len(gains)} of relevance",
                allowed="a number a candidate, 0 where it does not answer",
            )
    else:
        positives = passages_of("positive")
        negatives = passages_of("negatives") if "negatives" in columns else ()
        negatives = tuple(each for each in negatives if each not in positives)
        passages = positives + negatives
        gains = (1.0,) * len(positives) + (0.0,) * len(negatives)
    return Example(Record(text=query, candidates=passages, relevance=gains, line=line))


def _passages(table: Table, line: int, column: str, value: Any) -> tuple[str, ...]:
    """Without those that are empty or repeat another; a text is one passage. DataError for other things."""
    listed = value if isinstance(value, list | tuple) else [value]
    if strange := [each for each in listed if isinstance(each, list | dict | bytes)]:
        raise _wrong(table, line, f"{column} is no passage", strange[0], "a string or a list of strings")
    return tuple(dict.fromkeys(str(each) for each in listed if each is not None and str(each).strip()))


def _gains(table: Table, line: int, value: Any) -> tuple[float, ...]:
    listed = value if isinstance(value, list | tuple) else [value]
    try:
        gains = tuple(float(each) for each in listed)
    except (TypeError, ValueError):
        gains = (math.nan,)
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


def _list(value: Any) -> list[Any]:
    """A list as it is, one written as JSON, or words between spaces."""
    if isinstance(value, str):
        if value.lstrip().startswith("["):
            try:
                found = json.loads(value)
            except ValueError:
                found = None
            if isinstance(found, list):
                return found
        return value.split()
    return list(value or [])
