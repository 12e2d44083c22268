"""Columns of CoNLL: a word a line with its tags, an empty line behind each sentence.

-DOCSTART- begins a document (Tjong Kim Sang & De Meulder 2003), whose number is the column `document`.
"""

from collections.abc import Iterator
from pathlib import Path

from compress.config.records import RecordFormat, RecordSet
from compress.data.readers import Row, Table
from compress.data.readers.lines import text_lines
from compress.errors import DataError

_START = "-DOCSTART-"


def open_table(path: Path, config: RecordSet, kind: RecordFormat) -> Table:
    """Columns by `config.header`; without one the first is `tokens` and the last `tags`."""

    def rows() -> Iterator[tuple[int, Row]]:
        document, begin, width = 0, 0, len(config.header)
        sentence: list[list[str]] = []
        for number, line in text_lines(path, config.encoding):
            fields = _fields(line)
            if not fields or fields[0] == _START:
                if sentence:
                    yield begin, _row(sentence, config.header, document)
                    sentence = []
                document += bool(fields)
                continue
            if fields[0].startswith("#") and not sentence and len(fields) != width:
                continue  # a comment of CoNLL-U
            width = width or len(fields)
            if len(fields) != width or width < 2:
                raise DataError(
                    f"{path.name}:{number} has another number of columns than the lines before",
                    found=f"{len(fields)}: {line.strip()[:60]}",
                    allowed=max(width, 2),
                    next="a word and its tag a line, an empty line behind each sentence",
                )
            begin = begin if sentence else number
            sentence.append(fields)
        if sentence:
            yield begin, _row(sentence, config.header, document)

    first = next(rows(), None)
    if first is None:
        raise DataError(f"{path.name} has no sentence", next="check the file and its format")
    return Table(name=path.name, columns=tuple(first[1]), rows=rows)


def _fields(line: str) -> list[str]:
    text = line.rstrip("\r\n")
    return text.split("\t") if "\t" in text else text.split()


def _row(sentence: list[list[str]], header: list[str], document: int) -> Row:
    columns = list(zip(*sentence, strict=True))
    names = header or ["tokens", *(f"column{i}" for i in range(2, len(columns))), "tags"]
    return {**{name: list(each) for name, each in zip(names, columns, strict=True)}, "document": document}
