"""Tables with commas or tabs."""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

from compress.config.records import RecordFormat, RecordSet
from compress.data.readers import Row, Table
from compress.data.readers.lines import text_lines
from compress.errors import DataError

csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a document may be longer than 131,072 characters


def open_table(path: Path, config: RecordSet, kind: RecordFormat) -> Table:
    header, first = tuple(config.header), 0
    if not header:
        first, fields = next(_fields(path, config, kind), (1, []))
        header = tuple(name.strip() for name in fields)
        repeated = sorted({name for name in header if header.count(name) > 1})
        if not header or repeated:
            raise DataError(
                f"{path.name} has no header of columns",
                found=f"twice: {', '.join(repeated)}" if repeated else "an empty file",
                next="name its columns: 'data.train_set.header=[text,label]'",
            )

    def rows() -> Iterator[tuple[int, Row]]:
        for number, fields in _fields(path, config, kind):
            if number == first or not fields:
                continue
            if len(fields) != len(header):
                raise DataError(
                    f"{path.name}:{number} has another number of fields than the header",
                    found=f"{len(fields)}: {' | '.join(fields)[:80]}",
                    allowed=f"{len(header)}: {', '.join(header)}",
                    next="quote fields that hold the separator; where quotes are letters like others: "
                    "data.train_set.quotes=false",
                )
            yield number, dict(zip(header, fields, strict=True))

    return Table(name=path.name, columns=header, rows=rows)


def _fields(path: Path, config: RecordSet, kind: RecordFormat) -> Iterator[tuple[int, list[str]]]:
    """Number of the line where each row begins, and its fields."""
    lines = (line for _, line in text_lines(path, config.encoding))
    reader = csv.reader(
        lines,
        delimiter="\t" if kind is RecordFormat.tsv else ",",
        quoting=csv.QUOTE_MINIMAL if config.quotes else csv.QUOTE_NONE,
        strict=True,
    )
    while True:
        begin = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{path.name}:{begin} is no row of a {kind.value} table",
                found=error,
                next="mend its quotes, or where they are letters like others: data.train_set.quotes=false",
            ) from None
        yield begin, fields
