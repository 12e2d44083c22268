"""The table of schemes, `path:` and the cache's own helpers."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from compress import sources
from compress.errors import SourceError
from compress.sources.cache import digest, scratch


def test_path_is_relative_to_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data.txt").write_text("a\n")
    monkeypatch.chdir(tmp_path)
    assert sources.fetch("path:data.txt") == tmp_path / "data.txt"
    assert sources.fetch("data.txt") == tmp_path / "data.txt"
    assert sources.fetch(f"path:{tmp_path}/data.txt") == tmp_path / "data.txt"


def test_a_file_is_checked_against_its_sha256(tmp_path: Path) -> None:
    file = tmp_path / "data.txt"
    file.write_bytes(b"abc")
    right = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert sources.fetch(f"path:{file}", right) == file
    with pytest.raises(SourceError, match=right):
        sources.fetch(f"path:{file}", "0" * 64)
    with pytest.raises(SourceError, match="64 digits"):
        sources.fetch(f"path:{file}", "abc")


def test_digest_of_a_folder_is_that_of_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    for name in ("b/x.json", "a.txt", ".git/HEAD", "weights.bin"):
        (tmp_path / name).write_text(name)
    patterns = ("*.json", "*.txt")
    printed = subprocess.run(
        ["sha256sum", "a.txt", "b/x.json"], cwd=tmp_path, capture_output=True, check=True
    )
    assert digest(tmp_path, patterns) == hashlib.sha256(printed.stdout).hexdigest()
    assert digest(tmp_path) != digest(tmp_path, patterns)


def test_identity_follows_content_and_not_place(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
    before = sources.identity(f"path:{one}")
    assert sources.identity(f"path:{two}") == before
    (one / "config.json").write_text("{ }")
    assert sources.identity(f"path:{one}") != before


def test_identity_of_what_is_pinned_fetches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pinned = sources.identity("package:nothing==1.0/file", "0" * 64)
    assert pinned != sources.identity("package:nothing==1.0/file", "1" * 64)
    assert pinned != sources.identity("package:nothing==1.0/other", "0" * 64)
    assert len(sources.identity(f"hf:org/name@{'a' * 40}")) == 64
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("path:", "nothing follows"),
        ("pakage:a==1/b", "did you mean 'package'"),
        ("", "an empty string"),
        ("path:no_such_file", "no_such_file"),
        ("no/such/file", "neither an existing path"),
        ("hf:a b", "not a hub repository"),
        ("hf:org/name@", "not a hub repository"),
        ("package:name/file", "package:dist==version/path/inside"),
        ("package:name==1.0", "package:dist==version/path/inside"),
        ("package:name==1.0/../x", "package:dist==version/path/inside"),
        ("package:--index-url=x==1.0/x", "package:dist==version/path/inside"),
    ],
)
def test_what_is_no_source_is_explained(uri: str, message: str) -> None:
    with pytest.raises(SourceError) as caught:
        sources.fetch(uri)
    assert message in str(caught.value)


def test_a_misspelt_file_is_suggested(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").touch()
    with pytest.raises(SourceError, match=r"did you mean 'corpus\.txt'"):
        sources.fetch(f"path:{tmp_path}/corpsu.txt")


def test_an_empty_folder_has_no_identity(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no files"):
        sources.identity(f"path:{tmp_path}")


def test_describe_a_path(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text("{}")
    facts = sources.describe(f"path:{tmp_path}/model.json")
    assert facts["name"] == "model.json"
    assert facts["sha256"] == hashlib.sha256(b"{}").hexdigest()


def test_cache_dir_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path))
    assert sources.cache_dir() == tmp_path
    monkeypatch.delenv("COMPRESS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert sources.cache_dir().name == "compress"


def test_scratch_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail() -> None:
        with scratch(tmp_path) as folder:
            (folder / "half").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []
