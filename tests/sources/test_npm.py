"""`npm:` with packages that the tests write and a registry on loopback."""

import base64
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from compress import sources
from compress.errors import SourceError
from compress.sources import npm
from compress.sources.npm import installed

URI = "npm:@org/tiny@1.0.0/data"
MANIFEST = {
    "name": "@org/tiny",
    "version": "1.0.0",
    "license": "MIT",
    "scripts": {"preinstall": "touch /tmp/a-script-ran && exit 1", "prepack": "exit 1"},
}
FILES = {"package.json": json.dumps(MANIFEST), "data/words.txt": "a\nb\n", "data/more/x.bin": "x" * 99}


def archive(files: dict[str, str]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return packed.getvalue()


def sha512(content: bytes) -> str:
    return "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()


class Registry(ThreadingHTTPServer):
    content = archive(FILES)
    promised = sha512(content)  # what its list says of the content


class Handler(BaseHTTPRequestHandler):
    server: Registry

    def do_GET(self) -> None:
        tarball = f"http://127.0.0.1:{self.server.server_address[1]}/tiny.tgz"
        version = {**MANIFEST, "dist": {"tarball": tarball, "integrity": self.server.promised}}
        known = {"name": "@org/tiny", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
        if self.path.endswith(".tgz"):
            status, body = 200, self.server.content
        elif self.path.lower() == "/@org%2ftiny":
            status, body = 200, json.dumps(known).encode()
        else:
            status, body = 404, b'{"error": "Not found"}'
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    with Registry(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{server.server_address[1]}/")
        monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
        monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
        yield server
        server.shutdown()


def test_a_folder_of_a_package_is_fetched_once_and_runs_nothing(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = sources.fetch(URI, registry.promised)
    assert (data / "words.txt").read_text() == "a\nb\n"
    assert not Path("/tmp/a-script-ran").exists()
    monkeypatch.setenv("PATH", "")  # no npm: what is kept needs none
    sha256 = hashlib.sha256(registry.content).hexdigest()
    for pin in (registry.promised, sha256, None):
        assert sources.fetch(URI, pin) == data
    words = sources.fetch("npm:@org/tiny@1.0.0/data/words.txt", registry.promised)
    assert words.read_text() == "a\nb\n"
    assert sources.describe(URI, registry.promised) == {
        "uri": URI,
        "name": "@org/tiny",
        "version": "1.0.0",
        "sha256": sha256,
        "license": "MIT",
    }
    assert sources.identity(URI, sha256) != sources.identity(URI, registry.promised)


def test_another_file_than_the_pinned_one_is_refused(registry: Registry) -> None:
    with pytest.raises(SourceError, match=r"not what was pinned: another sha512\n  found:   sha512-"):
        sources.fetch(URI, sha512(b"other"))
    with pytest.raises(SourceError, match="not what was pinned: another sha256"):
        sources.fetch(URI, "0" * 64)
    with pytest.raises(SourceError, match=r"is not one(.|\n)*sha512- and 88"):
        sources.fetch(URI, "sha512-abc")
    registry.promised = sha512(b"other")
    with pytest.raises(SourceError, match="serves another file than the one that was pinned"):
        sources.fetch(URI)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("npm:@org/tiny@2.0.0/data", r"npm cannot download @org/tiny@2\.0\.0(.|\n)*No matching version"),
        ("npm:@org/other@1.0.0/data", r"npm cannot download @org/other(.|\n)*404"),
        ("npm:@org/tiny@1.0.0/words", r"no such file or folder in @org/tiny@1\.0\.0\n  found:   words"),
        ("npm:@org/tiny@1.0.0/../x", "not a file in a package"),
        ("npm:@org/tiny@latest/data", "not a file in a package"),
        ("npm:-x@1.0.0/data", "not a file in a package"),
    ],
)
def test_what_is_not_there_is_named(registry: Registry, name: str, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        sources.fetch(name)


def test_no_npm_and_no_registry(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    with pytest.raises(SourceError, match=r"no network: npm cannot reach its registry for @org/tiny@1\.0\.0"):
        sources.fetch(URI)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(
        SourceError, match=r"need npm, which this system lacks(.|\n)*apt-get install nodejs npm"
    ):
        sources.fetch(URI)


def test_the_packages_of_a_lock_are_installed_whole_or_not_at_all(registry: Registry, tmp_path: Path) -> None:
    lock = tmp_path / "package-lock.json"
    (tmp_path / "package.json").write_text(json.dumps({"dependencies": {"@org/tiny": "1.0.0"}}))
    packages = {
        "": {"dependencies": {"@org/tiny": "1.0.0"}},
        "node_modules/@org/tiny": {"version": "1.0.0", "integrity": sha512(b"other")},
    }
    lock.write_text(json.dumps({"lockfileVersion": 3, "requires": True, "packages": packages}))
    with pytest.raises(SourceError, match="serves another file than the one that was pinned"):
        installed(lock)
    assert [each.name for each in (tmp_path / "cache" / "npm").iterdir()] == ["locks"]
    packages["node_modules/@org/tiny"]["integrity"] = registry.promised
    lock.write_text(json.dumps({"lockfileVersion": 3, "requires": True, "packages": packages}))
    folder = installed(lock)
    assert (folder / "node_modules/@org/tiny/data/words.txt").read_text() == "a\nb\n"
    registry.shutdown()
    assert installed(lock) == folder
    assert npm.parse("fflate@0.8.3/lib").archive_name == "fflate-0.8.3.tgz"
