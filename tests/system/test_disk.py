import errno
from pathlib import Path

import pytest

from compress.errors import StoreError
from compress.system.disk import disk_errors, sha256_file


def test_disk_errors_tell_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="free some space"), disk_errors(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(StoreError, match="COMPRESS_CACHE"), disk_errors(tmp_path):
        raise OSError(errno.EROFS, "Read-only file system")


def test_sha256_file(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_file(tmp_path / "abc").startswith("ba7816bf8f01cfea")
