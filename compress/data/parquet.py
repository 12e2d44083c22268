"""Labelled images out of parquet files, as the data sets of the Hugging Face hub have them.

A column of images, each a struct of `bytes` (an encoded PNG, JPEG, ...) and `path`, or the bytes alone; a
column of integer labels; and the names of the classes in the metadata of the schema, under `huggingface`.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.data.readers.hub import names_of
from compress.errors import DataError, did_you_mean

_ROWS = 1024  # that are in memory at a time, beside what was decoded
Encoded = Iterator[tuple[str, bytes]]


def read_parquet(
    files: Sequence[Path], image_column: str, label_column: str
) -> tuple[Encoded, NDArray[np.int64], tuple[str, ...]]:
    """Where each image stands and its encoded bytes, the labels, and the names of the classes, if any.

    Raises DataError for a file that is damaged or lacks a column, and for a row without image or label.
    """
    labels, names = [], set()
    for path in files:
        schema = opened(path).schema_arrow
        _check_columns(path, schema, image_column, label_column)
        names.add(names_in(schema.metadata or {}, label_column))
        labels.append(_labels(path, label_column))
    if len(names) > 1:
        raise DataError("the parquet files have different classes", found=" / ".join(map(", ".join, names)))
    return _encoded(files, image_column), np.concatenate(labels), names.pop()


def opened(path: Path) -> Any:
    import pyarrow
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise damaged(path, error) from None


def _check_columns(path: Path, schema: Any, image_column: str, label_column: str) -> None:
    import pyarrow

    for column, setting in ((image_column, "image_column"), (label_column, "label_column")):
        if column not in schema.names:
            raise DataError(
                f"{path.name} has no such column",
                found=column,
                allowed=did_you_mean(column, schema.names),
                next=f"name it: data.train_set.{setting}=... and data.test_set.{setting}=...",
            )
    image, label = schema.field(image_column).type, schema.field(label_column).type
    if not (_is_bytes(image) or (pyarrow.types.is_struct(image) and _is_bytes(_bytes_of(image)))):
        raise DataError(
            f"the column {image_column} of {path.name} holds no encoded images",
            found=image,
            allowed="struct<bytes: binary, path: string>, or binary",
        )
    if not pyarrow.types.is_integer(label):
        raise DataError(
            f"the column {label_column} of {path.name} holds no labels", found=label, allowed="integers"
        )


def _is_bytes(kind: Any) -> bool:
    import pyarrow

    return kind is not None and (pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind))


def _bytes_of(struct: Any) -> Any:
    index = struct.get_field_index("bytes")
    return struct.field(index).type if index >= 0 else None


def names_in(metadata: dict[bytes, bytes], label_column: str) -> tuple[str, ...]:
    """Names of the classes by label; none where the schema does not tell."""
    try:
        return names_of(json.loads(metadata[b"huggingface"])["info"]["features"][label_column])
    except (KeyError, ValueError, TypeError):
        return ()


def _labels(path: Path, column: str) -> NDArray[np.int64]:
    import pyarrow

    try:
        found = opened(path).read([column])[column].combine_chunks()
    except (OSError, pyarrow.ArrowException) as error:
        raise damaged(path, error) from None
    if found.null_count:
        rows = np.flatnonzero(found.is_null().to_numpy(zero_copy_only=False))
        raise DataError(f"{path.name} has rows without a label", found=f"{len(rows)}, e.g. row {rows[0]}")
    return np.asarray(found.to_numpy(zero_copy_only=False).astype(np.int64))


def _encoded(files: Sequence[Path], column: str) -> Encoded:
    import pyarrow

    for path in files:
        row = 0
        try:
            for batch in opened(path).iter_batches(_ROWS, columns=[column]):
                for image in batch[column].to_pylist():
                    data = image.get("bytes") if isinstance(image, dict) else image
                    if data is None:
                        raise DataError(f"row {row} of {path.name} has no image")
                    yield f"row {row} of {path.name}", data
                    row += 1
        except (OSError, pyarrow.ArrowException) as error:
            raise damaged(path, error) from None


def damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path.name} is damaged or no parquet file", found=error, next="fetch it again")
