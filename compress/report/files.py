"""Files that appear whole or not at all."""

import os
from pathlib import Path


def beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")


def publish(path: Path, text: str) -> None:
    temporary = beside(path)
    try:
        temporary.write_bytes(text.encode())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
