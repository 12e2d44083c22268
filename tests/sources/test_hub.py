"""`hf:` against a folder in the hub's cache layout, without a network."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from compress import sources
from compress.config.model import CausalLMModel, EncoderModel
from compress.errors import ModelError, SourceError, StoreError
from compress.sources import hub
from compress.tasks import import_model
from tests.zoo.encoders import modules

COMMIT = "0123456789abcdef0123456789abcdef01234567"
Answer = Callable[[Any], Any]  # to a request of the hub's client


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`org/tiny` as huggingface_hub keeps it: a ref to a commit, links from its snapshot to blobs."""
    model = tmp_path / "home" / "hub" / "models--org--tiny"
    snapshot = model / "snapshots" / COMMIT
    for folder in (model / "refs", model / "blobs", snapshot):
        folder.mkdir(parents=True)
    (model / "refs" / "main").write_text(COMMIT)
    files = {
        "config.json": "{}",
        "model.safetensors": "weights",
        "pytorch_model.bin": "pickle",
        "README.md": "---\nlicense: mit\n---\n",
    }
    for number, (name, content) in enumerate(files.items()):
        (model / "blobs" / str(number)).write_text(content)
        (snapshot / name).symlink_to(Path("../../blobs") / str(number))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "home" / "hub"


def test_a_model_in_the_hub_cache_needs_no_network(hub_cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        folder = sources.fetch("hf:org/tiny")
    assert folder == hub_cache / "models--org--tiny" / "snapshots" / COMMIT
    assert f"pin it as hf:org/tiny@{COMMIT}" in caplog.text
    assert sources.fetch(f"hf:org/tiny@{COMMIT}") == folder


def test_hf_hub_cache_wins_over_hf_home(
    hub_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(hub_cache))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "elsewhere"))
    assert sources.fetch("hf:org/tiny").parents[2] == hub_cache


def test_provenance_names_the_commit(hub_cache: Path) -> None:
    facts = sources.describe("hf:org/tiny")
    assert (facts["name"], facts["revision"], facts["license"]) == ("org/tiny", COMMIT, "mit")
    assert sources.fetch("hf:org/tiny", facts["sha256"]).name == COMMIT


def test_main_and_its_commit_are_the_same_model(hub_cache: Path) -> None:
    assert sources.identity("hf:org/tiny") == sources.identity(f"hf:org/tiny@{COMMIT}")
    assert sources.identity("hf:org/tiny") != sources.identity(f"hf:org/tiny@{'f' * 40}")


def test_pickled_weights_do_not_count(hub_cache: Path) -> None:
    snapshot = hub_cache / "models--org--tiny" / "snapshots" / COMMIT
    pinned = sources.describe("hf:org/tiny")["sha256"]
    (snapshot / "pytorch_model.bin").unlink()
    assert sources.describe("hf:org/tiny")["sha256"] == pinned
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(SourceError, match="no safetensors"):
        sources.fetch("hf:org/tiny")


def test_a_file_and_the_commit_of_a_branch_need_no_weights(hub_cache: Path) -> None:
    snapshot = hub_cache / "models--org--tiny" / "snapshots" / COMMIT
    (snapshot / "model.safetensors").unlink()
    found = sources.peek("hf:org/tiny", "config.json")
    assert found is not None
    assert found.read_text() == "{}"
    assert sources.peek("hf:org/tiny", "other.json") is None
    assert sources.identity("hf:org/tiny") == sources.identity(f"hf:org/tiny@{COMMIT}")


def test_modules_that_are_not_exported_are_refused_before_their_weights_are_there(
    hub_cache: Path, tmp_path: Path
) -> None:
    snapshot = hub_cache / "models--org--tiny" / "snapshots" / COMMIT
    (snapshot / "model.safetensors").unlink()
    modules(snapshot, pooling={"embedding_dimension": 16, "pooling_mode": "attention"})
    with pytest.raises(ModelError, match="pooling_mode = attention"):
        import_model(EncoderModel(source="hf:org/tiny"), tmp_path)


def test_what_no_option_can_open_is_refused_before_its_weights_are_there(
    hub_cache: Path, tmp_path: Path
) -> None:
    snapshot = hub_cache / "models--org--tiny" / "snapshots" / COMMIT
    (snapshot / "model.safetensors").unlink()
    (snapshot / "config.json").write_text('{"model_type": "mixtral", "num_local_experts": 8}')
    for model in (CausalLMModel(source="hf:org/tiny"), EncoderModel(source="hf:org/tiny")):
        with pytest.raises(ModelError, match="mixtral is a mixture of experts"):
            import_model(model, tmp_path)


def test_changed_weights_are_refused(hub_cache: Path) -> None:
    pinned = sources.describe("hf:org/tiny")["sha256"]
    (hub_cache / "models--org--tiny" / "blobs" / "1").write_text("other weights")
    with pytest.raises(SourceError, match="not what was pinned"):
        sources.fetch("hf:org/tiny", pinned)


def test_without_network_and_cache_it_says_what_to_use(hub_cache: Path) -> None:
    with pytest.raises(SourceError, match=r"no network(.|\n)*package: or path:"):
        sources.fetch("hf:org/other")


@pytest.fixture
def answers(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Answer], None]]:
    """Sets what the hub's own client, online now, gets for every request."""
    import httpx2
    import huggingface_hub
    from huggingface_hub.utils._http import default_client_factory

    def use(answer: Answer) -> None:
        transport = httpx2.MockTransport(answer)
        huggingface_hub.set_client_factory(lambda: httpx2.Client(transport=transport))

    monkeypatch.delenv("HF_HUB_OFFLINE")
    yield use
    huggingface_hub.set_client_factory(default_client_factory)


def refuse(request: Any) -> Any:
    import httpx2

    raise httpx2.ConnectError("refused")


def test_an_unreachable_hub_is_no_network(answers: Callable[[Answer], None]) -> None:
    answers(refuse)
    with pytest.raises(SourceError, match="no network"):
        sources.fetch("hf:org/other")
    assert sources.fetch("hf:org/tiny").name == COMMIT


@pytest.mark.parametrize(
    ("status", "code", "explained"),
    [
        (503, "", r"the hub fails, and hf:org/other@v2 is not in the cache(.|\n)*found: .*503"),
        (401, "RepoNotFound", "no such repository on the hub"),
        (403, "GatedRepo", "asks for consent"),
        (404, "RevisionNotFound", r"no such revision(.|\n)*found: +v2"),
    ],
)
def test_what_the_hub_refuses_is_explained(
    answers: Callable[[Answer], None], status: int, code: str, explained: str
) -> None:
    import httpx2

    answers(lambda request: httpx2.Response(status, headers={"X-Error-Code": code}, request=request))
    with pytest.raises(SourceError, match=explained):
        sources.fetch("hf:org/other@v2")


def test_a_hub_that_breaks_off(answers: Callable[[Answer], None]) -> None:
    """It delivers one of two files: not an error of the disk, and afterwards no whole model."""
    import httpx2

    def one_of_two(request: httpx2.Request) -> httpx2.Response:
        path = request.url.path
        if "/tree/" in path:
            names = ("config.json", "model.safetensors")
            entries = [{"type": "file", "path": name, "size": 2, "oid": name} for name in names]
            return httpx2.Response(200, json=entries, request=request)
        if path.startswith("/api/models/"):
            return httpx2.Response(200, json={"id": "org/other", "sha": COMMIT}, request=request)
        if request.method == "GET" and path.endswith(".safetensors"):
            return httpx2.Response(410, request=request)
        headers = {"ETag": path[-4:], "X-Repo-Commit": COMMIT, "Content-Length": "2"}
        return httpx2.Response(200, headers=headers, content=b"{}", request=request)

    answers(one_of_two)
    with pytest.raises(SourceError, match=r"did not deliver hf:org/other@main(.|\n)*410"):
        sources.fetch("hf:org/other")
    answers(refuse)
    with pytest.raises(SourceError, match="not whole in the cache"):
        sources.fetch("hf:org/other")


def test_a_full_disk_is_the_stores_error(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    import huggingface_hub

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    with pytest.raises(StoreError, match="free some space"):
        sources.fetch("hf:org/tiny")


def test_parse() -> None:
    assert hub.parse("org/name@v1.0") == ("org/name", "v1.0")
    assert hub.parse("bert-base") == ("bert-base", "")


# ---------------------------------------------------------------- data sets


@pytest.fixture
def data_set(hub_cache: Path) -> Path:
    """`org/pictures` as huggingface_hub keeps a data set."""
    folder = hub_cache / "datasets--org--pictures"
    snapshot = folder / "snapshots" / COMMIT
    (snapshot / "plain").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    (snapshot / "plain" / "train-00000-of-00001.parquet").write_text("rows")
    (snapshot / "README.md").write_text("---\nlicense: mit\n---\n")
    return snapshot


def test_a_data_set_is_no_model(data_set: Path) -> None:
    assert sources.fetch("hf:datasets/org/pictures") == data_set
    assert sources.identity("hf:datasets/org/pictures") == sources.identity(
        f"hf:datasets/org/pictures@{COMMIT}"
    )
    facts = sources.describe("hf:datasets/org/pictures")
    assert (facts["name"], facts["revision"]) == ("datasets/org/pictures", COMMIT)
    with pytest.raises(SourceError, match="no network, and hf:org/pictures@main is not in the cache"):
        sources.fetch("hf:org/pictures")


def test_a_pinned_data_set_is_checked(data_set: Path) -> None:
    pinned = sources.describe("hf:datasets/org/pictures")["sha256"]
    assert sources.fetch("hf:datasets/org/pictures", pinned) == data_set
    (data_set / "plain" / "train-00000-of-00001.parquet").write_text("other rows")
    with pytest.raises(SourceError, match="not what was pinned"):
        sources.fetch("hf:datasets/org/pictures", pinned)


def test_a_data_set_without_parquet_files(data_set: Path) -> None:
    (data_set / "plain" / "train-00000-of-00001.parquet").unlink()
    with pytest.raises(SourceError, match=r"no parquet files(.|\n)*org/pictures@refs/convert/parquet"):
        sources.fetch("hf:datasets/org/pictures")
    assert hub.parse("datasets/org/pictures@refs/convert/parquet")[1] == "refs/convert/parquet"
