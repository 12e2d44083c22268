"""A JSON file as a whole: a list of objects, or questions in the layout of SQuAD."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from compress.config.records import RecordFormat, RecordSet
from compress.data.readers import Row, Table, columns_of, jsonl
from compress.data.readers.lines import text_lines
from compress.errors import DataError


def open_table(path: Path, config: RecordSet, kind: RecordFormat) -> Table:
    """Files that are JSON lines by another name are read as such."""
    lines = (line for _, line in text_lines(path, config.encoding) if line.strip())
    beginning = next(lines, "").strip()
    if beginning.startswith("{") and beginning.endswith("}") and next(lines, "").strip().startswith("{"):
        return jsonl.open_table(path, config, kind)
    content = "".join(line for _, line in text_lines(path, config.encoding))
    try:
        found = json.loads(content)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path.name}:{error.lineno} is no JSON", found=f"{error.msg} at character {error.colno}"
        ) from None
    jsonl.check_letters(path.name, content)
    table = list(_rows(path.name, found))

    def rows() -> Iterator[tuple[int, Row]]:
        return enumerate(table, start=1)

    return Table(name=path.name, columns=columns_of(path.name, rows()), rows=rows)


def _rows(name: str, found: Any) -> Iterator[Row]:
    inner = found.get("data") if isinstance(found, dict) else found
    if not isinstance(inner, list) or not all(isinstance(each, dict) for each in inner):
        raise DataError(
            f"{name} has no rows",
            found=type(found).__name__,
            allowed='a list of objects, or {"data": [...]}',
        )
    for each in inner:
        if "paragraphs" in each:
            yield from _squad(name, each)
        else:
            yield each


def _squad(name: str, article: Row) -> Iterator[Row]:
    """The questions of an article (Rajpurkar et al. 2016); impossible ones of version 2 have no answer."""
    try:
        for paragraph in article["paragraphs"]:
            for asked in paragraph["qas"]:
                answers = asked.get("answers", [])
                yield {
                    "id": asked.get("id"),
                    "title": article.get("title", ""),
                    "question": asked["question"],
                    "context": paragraph["context"],
                    "answers": {
                        "text": [each["text"] for each in answers],
                        "answer_start": [each["answer_start"] for each in answers],
                    },
                }
    except (KeyError, TypeError) as error:
        raise DataError(f"{name} is not in the layout of SQuAD", found=_missing(error)) from None


def _missing(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)
