"""`debian:` with a small package that the tests build and apt finds in a repository of ours."""

import hashlib
import shutil
import subprocess
import sys
import tarfile

import pytest

from compress import sources
from compress.errors import SourceError
from compress.sources import debian

pytestmark = pytest.mark.skipif(not shutil.which("apt-get"), reason="no apt on this system")

URI = "debian:tiny-data==1.0~1-2/usr/share/tiny"
FILES = {"usr/share/tiny/a.txt": b"a", "usr/share/tiny/deep/b.bin": b"\0\1", "usr/share/other/c.txt": b"c"}


def build(folder, files=FILES, version="1.0~1-2", link=None):
    """A package of tiny-data in `folder`, and the index by which apt finds it; its sha256."""
    tree = folder / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    for name, content in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(content)
    if link:
        (tree / link[0]).symlink_to(link[1])
    control = (
        f"Package: tiny-data\nVersion: {version}\nArchitecture: all\nMaintainer: a <a@b>\nDescription: x\n"
    )
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN" / "control").write_text(control)
    (tree / "DEBIAN" / "postinst").write_text("#!/bin/sh\nexit 1\n")
    (tree / "DEBIAN" / "postinst").chmod(0o755)
    deb = folder / "tiny-data.deb"
    subprocess.run(["dpkg-deb", "-b", tree, deb], check=True, capture_output=True)
    sha256 = hashlib.sha256(deb.read_bytes()).hexdigest()
    size = deb.stat().st_size
    (folder / "Packages").write_text(
        f"{control}Filename: ./tiny-data.deb\nSize: {size}\nSHA256: {sha256}\n\n"
    )
    return sha256


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository that is the only one apt knows, on a system whose lists are empty."""
    folder = tmp_path / "repository"
    folder.mkdir()
    (tmp_path / "state").mkdir()
    (tmp_path / "sources.list").write_text(f"deb [trusted=yes] file:{folder} ./\n")
    (tmp_path / "apt.conf").write_text(
        f'Dir::Etc::sourcelist "{tmp_path}/sources.list";\nDir::Etc::sourceparts "-";\n'
        f'Dir::State "{tmp_path}/state";\nDir::Cache "{tmp_path}/state";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    return folder


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_folder_of_a_package(repository, tmp_path):
    sha256 = build(repository)
    folder = sources.fetch(URI, sha256)
    assert contents(folder) == {"a.txt": b"a", "deep/b.bin": b"\0\1"}
    assert folder.is_relative_to(tmp_path / "cache")
    assert sources.describe(URI, sha256) == {
        "uri": URI,
        "name": "tiny-data",
        "version": "1.0~1-2",
        "sha256": sha256,
    }


def test_a_file_of_a_package_without_a_pin(repository):
    build(repository)
    file = sources.fetch("debian:tiny-data==1.0~1-2/usr/share/tiny/a.txt")
    assert file.read_bytes() == b"a"


def test_what_is_kept_needs_no_apt(repository, monkeypatch):
    sha256 = build(repository)
    first = sources.fetch(URI, sha256)
    monkeypatch.setattr(debian, "_apt", lambda *_: pytest.fail("asked apt again"))
    assert sources.fetch(URI, sha256) == first
    other = sources.fetch("debian:tiny-data==1.0~1-2/usr/share/other", sha256)
    assert contents(other) == {"c.txt": b"c"}


def test_damaged_content_is_unpacked_again(repository):
    sha256 = build(repository)
    folder = sources.fetch(URI, sha256)
    (folder / "a.txt").write_bytes(b"another")
    assert contents(sources.fetch(URI, sha256)) == {"a.txt": b"a", "deep/b.bin": b"\0\1"}


def test_another_sha256(repository):
    build(repository)
    with pytest.raises(SourceError, match="not what was pinned"):
        sources.fetch(URI, "0" * 64)


def test_a_link_is_not_followed_and_not_made(repository, tmp_path):
    (tmp_path / "secret").write_text("secret")
    sha256 = build(repository, link=("usr/share/tiny/link", tmp_path / "secret"))
    assert set(contents(sources.fetch(URI, sha256))) == {"a.txt", "deep/b.bin"}


def test_a_path_that_leaves_its_folder(repository, tmp_path, monkeypatch):
    """Which dpkg-deb itself would not pack."""
    archive = tmp_path / "evil.tar"
    (tmp_path / "x").write_text("x")
    with tarfile.open(archive, "w") as tar:
        tar.add(tmp_path / "x", arcname="./usr/share/tiny/../../../../x")
    sha256 = build(repository)
    reader = [
        sys.executable,
        "-c",
        f"import sys; sys.stdout.buffer.write(open({str(archive)!r}, 'rb').read())",
    ]
    started = subprocess.Popen
    monkeypatch.setattr(
        debian.subprocess,
        "Popen",
        lambda command, **words: started(reader if command[0] == "dpkg-deb" else command, **words),
    )
    with pytest.raises(SourceError, match="leaves its folder"):
        sources.fetch(URI, sha256)
    assert not (tmp_path / "cache" / "x").exists()


def test_a_bomb(repository, tmp_path):
    sha256 = build(repository, {"usr/share/tiny/zeros": b"\0" * 30_000_000})
    with pytest.raises(SourceError, match="grows too much"):
        sources.fetch(URI, sha256)


def test_an_unknown_path_names_its_neighbours(repository):
    build(repository)
    with pytest.raises(SourceError, match="did you mean 'usr/share/tiny'"):
        sources.fetch("debian:tiny-data==1.0~1-2/usr/share/tyny")


def test_an_unknown_version_names_those_there_are(repository):
    build(repository)
    with pytest.raises(SourceError, match=r"allowed: 1\.0~1-2"):
        sources.fetch("debian:tiny-data==9/usr/share/tiny")


def test_an_unknown_package(repository):
    build(repository)
    with pytest.raises(SourceError, match="apt-get cannot download no-such-thing"):
        sources.fetch("debian:no-such-thing==1/usr/share/tiny")


def test_without_apt(repository, monkeypatch):
    monkeypatch.setattr(debian.shutil, "which", lambda _: None)
    with pytest.raises(SourceError, match="needs apt-get"):
        sources.fetch(URI)


@pytest.mark.parametrize(
    "name", ["tiny", "tiny==1.0", "tiny==1.0/", "tiny==1.0/../x", "tiny==1.0//etc", "Ti ny==1/x", "-o==1/x"]
)
def test_names_that_are_none(name):
    with pytest.raises(SourceError):
        sources.fetch(f"debian:{name}")


@pytest.mark.slow
def test_fashion_mnist_is_there(tmp_path, monkeypatch):
    """A file of 8 kB from the real package of 31 MB."""
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path))
    inside = "usr/share/datasets/fashion-mnist/t10k-labels-idx1-ubyte.gz"
    file = sources.fetch(f"debian:dataset-fashion-mnist==0.0~git20200523.55506a9-1/{inside}")
    assert hashlib.sha256(file.read_bytes()).hexdigest().startswith("8d3605d196f4be44")
