"""Lines of a text file of any size, plain or packed, whose broken bytes are found by line."""

import bz2
import codecs
import gzip
import lzma
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from compress.errors import DataError

_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def open_bytes(path: Path) -> IO[bytes]:
    file: IO[bytes] = _OPENERS.get(path.suffix.lower(), open)(path, "rb")
    return file


def text_lines(path: Path, encoding: str) -> Iterator[tuple[int, str]]:
    """Number, from 1, and text of each line with its end; a byte order mark is left out.

    Raises DataError, with line and byte, for what is not in `encoding`.
    """
    _check_encoding(path, encoding)
    before = 0
    try:
        with open_bytes(path) as file:
            for number, line in enumerate(file, start=1):
                try:
                    text = line.decode(encoding)
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{path.name}:{number} is not {encoding} text",
                        found=f"{error.reason}: byte {before + error.start} of the file, {error.start} of "
                        f"the line, is {line[error.start]:#04x}",
                        next="convert the file to one encoding, or name it: data.train_set.encoding=latin-1",
                    ) from None
                before += len(line)
                yield number, text.removeprefix("\ufeff") if number == 1 else text
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise DataError(f"cannot read {path}", found=error, next="fetch it again") from None


def _check_encoding(path: Path, encoding: str) -> None:
    try:
        name = codecs.lookup(encoding).name
    except LookupError:
        raise DataError(
            f"unknown encoding of {path.name}", found=encoding, allowed="utf-8, latin-1, ..."
        ) from None
    if name.startswith(("utf-16", "utf-32")):  # a byte of a line's end may be half a letter there
        raise DataError(
            f"{path.name} cannot be read by lines", found=encoding, next="convert it: iconv -t utf-8"
        )
