"""Which columns of a table have what an example is made of."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compress.data.readers import Table
from compress.errors import DataError, did_you_mean

_USUAL = {  # role -> what such columns are called, in this order of preference
    "text": ("text", "premise", "sentence1", "question1", "question", "sentence", "content", "document"),
    "pair": ("pair", "hypothesis", "sentence2", "question2", "text_pair"),
    "label": ("label", "labels", "class", "class-att", "category", "intent", "score"),
    "words": ("tokens", "words"),
    "tags": ("tags", "ner_tags", "labels"),
    "query": ("query", "anchor"),
    "positive": ("positive", "positives", "pos"),
    "negatives": ("negatives", "negative", "neg"),
    "candidates": ("candidates", "passages", "passage", "docs"),
    "relevance": ("relevance", "label", "labels", "score"),
    "question": ("question",),
    "context": ("context",),
    "answers": ("answers", "answer"),
    "start": ("answer_start", "start"),
}
_BESIDE_QUESTION = ("sentence", "passage", "context")  # what is read with a text that is called a question
_OF_PAIRS = {  # what pairs of a ranking are called, too, where it is known to be one
    "query": ("text", "sentence1", "question1", "question"),
    "candidates": (
        "pair",
        "sentence2",
        "question2",
        "text_pair",
        "document",
        "answer",
        "response",
        "context",
    ),
}
_NUMBERED = re.compile(r"neg(?:ative)?s?_?\d+")  # a negative a column
_KINDS = {  # kind -> roles that it needs, then its others; the first kind whose needs are met is meant
    "answering": (("question", "context"), ("answers", "start")),
    "ranking": (("query",), ("positive", "negatives", "candidates", "relevance")),
    "tagging": (("words",), ("tags",)),
    "text": (("text",), ("pair", "label")),
}
_NEEDED = {
    "answering": "question, context and answers",
    "ranking": "query with positive, candidates or a passage a row, and its label",
    "tagging": "tokens and tags",
    "text": "text and label, perhaps pair",
}
_AS_RANKING = {"text": "query", "pair": "candidates", "label": "relevance"}
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
    negatives: tuple[str, ...] = ()  # columns of one negative each

    @property
    def labelled(self) -> bool:
        return any(role in self.columns for role in LABELS[self.kind])


def find_layout(
    table: Table,
    named: Mapping[str, str],
    group: str | None,
    separator: str | None,
    unlabelled: bool = False,
    wanted: str | None = None,
) -> Layout:
    """Which column of `table` has which role. `named`: role -> column, of those that the user named.

    `unlabelled`: whether a named column of labels may be missing. `wanted`: the kind of examples that the
    model reads; where it is not known, the columns tell it. Rows of text, pair and label are a ranking to a
    model that wants one. Any model reads text without labels.

    Raises DataError for a column that is not there, where none is called as texts usually are, and where the
    columns are of another kind.
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
    for kind in (wanted,) if wanted else _KINDS:
        if columns := _roles(kind, named, table.columns, known=wanted is not None):
            more = _numbered(columns, table.columns) if "positive" in columns else ()
            return Layout(kind, columns, group, separator, more)
    found = _roles("text", named, table.columns, known=False)
    if wanted and found and "label" not in found:
        return Layout("text", found, group, separator)
    raise DataError(
        f"{table.name} has no columns of examples" + (" for this kind of model" if wanted else ""),
        found=", ".join(table.columns)[:300],
        allowed=_NEEDED[wanted] if wanted else "; ".join(_NEEDED.values()),
        next=f"name them: {_naming(wanted or 'text')}, {_HEADER}",
    )


def _naming(kind: str) -> str:
    roles = {"ranking": ("query", "candidates", "relevance")}.get(kind) or sum(_KINDS[kind], ())
    return " ".join(f"data.columns.{role}=..." for role in roles)


def _roles(kind: str, named: Mapping[str, str], columns: Sequence[str], known: bool) -> dict[str, str]:
    """Role -> column of an example of this kind; nothing where it lacks one. `known`: whether it must be."""
    if kind == "ranking" and known:
        named = {_AS_RANKING.get(role, role): column for role, column in named.items()}
    needs, others = _KINDS[kind]
    if named and not set(named) <= {*needs, *others}:
        return {}
    if kind != "ranking":
        found = _columns((*needs, *others), named, columns, _USUAL)
        if kind == "text" and found.get("text", "").casefold() == "question" and "pair" not in found:
            found |= _columns(("pair",), found, columns, {"pair": _BESIDE_QUESTION})
        return found if all(role in found for role in needs) else {}
    names = [_USUAL]
    if known:
        names.append({**_USUAL, **{role: (*_USUAL[role], *more) for role, more in _OF_PAIRS.items()}})
    for usual in names:
        found = _columns((*needs, *others), named, columns, usual)
        alone = "positive" in found and not {"candidates", "negatives"} & set(found)
        if alone and found.get("relevance", "score").casefold() != "score":
            found["candidates"] = found.pop("positive")  # pairs, of which the label says whether it answers
        if "candidates" not in found:
            found.pop("relevance", None)
        if "query" in found and ("positive" in found or "candidates" in found):
            return found
    return {}


def _columns(
    roles: Sequence[str],
    named: Mapping[str, str],
    columns: Sequence[str],
    usual: Mapping[str, Sequence[str]],
) -> dict[str, str]:
    """No column has two roles."""
    free = {name.casefold(): name for name in reversed(columns) if name not in named.values()}
    found: dict[str, str] = {}
    for role in roles:
        if role in named:
            column = named[role] if named[role] in columns else None
        else:
            column = next((free[name] for name in usual[role] if name in free), None)
        if column is not None:
            found[role] = column
            free.pop(column.casefold(), None)
    return found


def _numbered(found: Mapping[str, str], columns: Sequence[str]) -> tuple[str, ...]:
    """negative_1, negative_2, ... as sentence-transformers writes them."""
    return tuple(
        each for each in columns if _NUMBERED.fullmatch(each.casefold()) and each not in found.values()
    )
