"""Tables of rows out of files: a reader a format, each a row at a time, so that a file may be of any size."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from compress.config.records import RecordFormat, RecordSet
from compress.data.readers.lines import text_lines
from compress.errors import DataError

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A file: `rows` opens it anew and gives the number of its line and each row.

    Where a file knows rows and no lines, rows are numbered, from 1 too.
    """

    name: str
    columns: tuple[str, ...]
    rows: Callable[[], Iterator[tuple[int, Row]]]
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # column -> names by number

    def at(self, line: int) -> str:
        return f"{self.name}:{line}"


_READERS = {  # format -> module; each has `open_table(path, config)`
    RecordFormat.jsonl: "compress.data.readers.jsonl",
    RecordFormat.json: "compress.data.readers.whole_json",
    RecordFormat.csv: "compress.data.readers.delimited",
    RecordFormat.tsv: "compress.data.readers.delimited",
    RecordFormat.parquet: "compress.data.readers.parquet_rows",
    RecordFormat.arff: "compress.data.readers.arff",
    RecordFormat.conll: "compress.data.readers.conll",
    RecordFormat.wikipedia_mentions: "compress.data.readers.wikipedia",
    RecordFormat.wikipedia_passages: "compress.data.readers.wikipedia",
}
_SUFFIXES = {".ndjson": "jsonl", ".txt": "conll", ".bio": "conll", ".iob2": "conll", ".conllu": ""}
_PACKED = (".gz", ".bz2", ".xz")


def format_of(path: Path) -> RecordFormat | None:
    """By its name, compression aside; None for other files."""
    suffixes = [each.lower() for each in path.suffixes if each.lower() not in _PACKED]
    name = _SUFFIXES.get(suffixes[-1], suffixes[-1].lstrip(".")) if suffixes else ""
    known = {each.value for each in _READERS}
    return RecordFormat(name) if name in known else None


def open_table(path: Path, config: RecordSet) -> Table:
    """Raises DataError for a file of no known format, and where its beginning is not of its format."""
    kind: RecordFormat | None = config.format
    if kind is RecordFormat.auto:
        plain = next((each for each in reversed(path.suffixes) if each.lower() not in _PACKED), "")
        kind = _by_content(path, config.encoding) if plain.lower() == ".txt" else format_of(path)
    if kind is None:
        raise DataError(
            f"neither name nor beginning of {path.name} tells its format"
            if format_of(path)
            else f"the name of {path.name} does not tell its format",
            allowed=", ".join(each.value for each in _READERS),
            next="name it: data.train_set.format=jsonl, likewise for data.test_set",
        )
    opened: Table = import_module(_READERS[kind]).open_table(path, config, kind)
    return opened


def _by_content(path: Path, encoding: str) -> RecordFormat | None:
    """Of a .txt: JSON lines, or CoNLL's columns, of which empty lines part the sentences; None for others."""
    lines = [line.strip() for _, line in islice(text_lines(path, encoding), 1000)]
    first = next(filter(None, lines), "")
    if first.startswith("{"):
        return RecordFormat.jsonl
    return RecordFormat.conll if "" in lines[1:] or first.startswith("-DOCSTART-") else None


def columns_of(name: str, rows: Iterator[tuple[int, Row]]) -> tuple[str, ...]:
    """Those of the first thousand rows, any of which may lack some; raises DataError where there is none."""
    found = [row for _, row in islice(rows, 1000)]
    if not found:
        raise DataError(f"{name} has no row", next="check the file and its format")
    return tuple(dict.fromkeys(column for row in found for column in row))
