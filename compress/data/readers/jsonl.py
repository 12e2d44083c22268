"""JSON lines: an object a line."""

import json
from collections.abc import Iterator
from pathlib import Path

from compress.config.records import RecordFormat, RecordSet
from compress.data.readers import Row, Table, columns_of
from compress.data.readers.lines import text_lines
from compress.errors import DataError


def open_table(path: Path, config: RecordSet, kind: RecordFormat) -> Table:
    def rows() -> Iterator[tuple[int, Row]]:
        for number, line in text_lines(path, config.encoding):
            if line.strip():
                yield number, parsed(path.name, number, line)

    return Table(name=path.name, columns=columns_of(path.name, rows()), rows=rows)


def parsed(name: str, number: int, line: str) -> Row:
    """Raises DataError for what is no JSON object."""
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        column = getattr(error, "colno", 1)
        shown = line.rstrip("\n")[max(0, column - 31) : column + 29]
        raise DataError(
            f"{name}:{number} is no JSON",
            found=f"{getattr(error, 'msg', error)} at character {column}: {shown!r}",
            next="mend or remove the line",
        ) from None
    if not isinstance(row, dict):
        raise DataError(
            f"{name}:{number} is no JSON object", found=line.strip()[:60], allowed='{"text": "...", ...}'
        )
    check_letters(f"{name}:{number}", line)
    return row


def check_letters(where: str, content: str) -> None:
    r"""Raise DataError for JSON with half a letter, such as \ud83d without what belongs behind it."""
    if "\\ud" not in content.lower():
        return
    try:
        json.dumps(json.loads(content), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where} has half a letter",
            found=f"the surrogate {error.object[error.start]!a} alone",
            next="write the file anew with what cut its texts between the halves of a letter mended",
        ) from None
