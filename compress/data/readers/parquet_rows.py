"""Rows of a parquet file, a group of rows at a time."""

from collections.abc import Iterator
from pathlib import Path

from compress.config.records import RecordFormat, RecordSet
from compress.data.parquet import damaged, names_in, opened
from compress.data.readers import Row, Table

_ROWS = 1024


def open_table(path: Path, config: RecordSet, kind: RecordFormat) -> Table:
    schema = opened(path).schema_arrow
    names = {column: names_in(schema.metadata or {}, column) for column in schema.names}

    def rows() -> Iterator[tuple[int, Row]]:
        import pyarrow

        number = 0
        try:
            for batch in opened(path).iter_batches(_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
        except (OSError, pyarrow.ArrowException) as error:
            raise damaged(path, error) from None

    return Table(
        name=path.name,
        columns=tuple(schema.names),
        rows=rows,
        class_names={column: each for column, each in names.items() if each},
    )
