"""Weka's ARFF: attributes with their names, then rows with commas.

https://waikato.github.io/weka-wiki/formats_and_processing/arff_stable/; sparse rows are not read.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from compress.config.records import RecordFormat, RecordSet
from compress.data.readers import Row, Table
from compress.data.readers.lines import text_lines
from compress.errors import DataError

_FIELD = re.compile(r"""\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|([^,'"]*?))\s*(?:,|$)""", re.DOTALL)
_ATTRIBUTE = re.compile(
    r"""@attribute\s+(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|(\S+))\s""", re.IGNORECASE
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


def open_table(path: Path, config: RecordSet, kind: RecordFormat) -> Table:
    columns: list[str] = []
    body = False
    for _, line in text_lines(path, config.encoding):
        if found := _ATTRIBUTE.match(line.strip() + " "):
            columns.append(_plain(next(each for each in found.groups() if each is not None)))
        if line.strip().lower() == "@data":
            body = True
            break
    if not columns or not body:
        raise DataError(
            f"{path.name} is no ARFF file",
            found="no @data" if columns else "no @attribute",
            allowed="@relation, @attribute for each column, @data, rows",
        )

    def rows() -> Iterator[tuple[int, Row]]:
        data = False
        for number, line in text_lines(path, config.encoding):
            text = line.strip()
            if data and text and not text.startswith("%"):
                fields = split_fields(text)
                if fields is None or len(fields) != len(columns):
                    raise DataError(
                        f"{path.name}:{number} does not have the attributes' fields",
                        found=f"{'quotes that do not close' if fields is None else len(fields)}: {text[:60]}",
                        allowed=f"{len(columns)}: {', '.join(columns)}",
                    )
                yield number, dict(zip(columns, fields, strict=True))
            data = data or text.lower() == "@data"

    return Table(name=path.name, columns=tuple(columns), rows=rows)


def split_fields(text: str) -> list[str | None] | None:
    """The fields of a row, None for `?`, which stands for a missing one; None where quotes do not close."""
    fields: list[str | None] = []
    place = 0
    while True:
        found = _FIELD.match(text, place)
        if found is None:
            return None
        single, double, bare = found.groups()
        quoted = single if single is not None else double
        fields.append(_plain(quoted) if quoted is not None else None if bare == "?" else bare)
        place = found.end()
        if place >= len(text) and not text[found.start() : place].endswith(","):
            return fields


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), text, flags=re.DOTALL)
