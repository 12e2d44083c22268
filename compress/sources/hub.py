"""`hf:org/name@revision` a model of the Hugging Face hub, `hf:datasets/org/name@revision` a data set.

Only files that load without running code are fetched: never .bin or .pkl; of a data set its parquet files.
They go to the hub's own cache where HF_HUB_CACHE or HF_HOME name one, else to `hub/` in ours; without a
network what is there is used.
"""

import logging
import os
import re
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from compress.errors import CompressError, SourceError, StoreError
from compress.sources.cache import cache_dir, digest, expect
from compress.system.disk import disk_errors

PATTERNS = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.md")
DATASET_PATTERNS = ("*.parquet", "*.md")
_DATASETS = "datasets/"
_ALLOWED = "hf:org/name@revision, hf:datasets/org/name@revision"
_log = logging.getLogger(__name__)


def fetch(name: str, sha256: str | None) -> Path:
    repository, revision = parse(name)
    folder = _snapshot(repository, revision or "main")
    if not any(fnmatch(file.name, _patterns(repository)[0]) for file in folder.rglob("*")):
        raise _without_content(repository, folder)
    if sha256 is not None:
        expect(f"hf:{name}", sha256, digest(folder, _patterns(repository)))
    if folder.name != revision:
        _log.info("hf:%s is commit %s; pin it as hf:%s@%s", name, folder.name, repository, folder.name)
    return folder


def peek(name: str, file: str, beside: str | None = None) -> Path | None:
    repository, revision = parse(name)
    patterns = [file] if beside is None else [file, beside]
    path = _snapshot(repository, revision or "main", patterns) / file
    return path if path.is_file() else None


def _without_content(repository: str, folder: Path) -> SourceError:
    found = ", ".join(sorted(file.name for file in folder.iterdir())) or "nothing loadable"
    if repository.startswith(_DATASETS):
        return SourceError(
            f"hf:{repository} has no parquet files",
            found=found,
            next=f"try the hub's own conversion of it: hf:{repository}@refs/convert/parquet",
        )
    return SourceError(
        f"hf:{repository} has no safetensors weights",
        found=found,
        allowed="safetensors; pickled weights are never loaded",
        next="choose a revision with safetensors, or convert it and use path:",
    )


def describe(name: str, sha256: str | None) -> dict[str, str]:
    folder, repository = fetch(name, sha256), parse(name)[0]
    content = sha256 or digest(folder, _patterns(repository))
    facts = {"name": repository, "revision": folder.name, "sha256": content}
    card = folder / "README.md"
    if card.is_file():
        front = re.search(r"^license:\s*(\S+)\s*$", card.read_text("utf-8", "replace"), re.MULTILINE)
        facts |= {"license": front.group(1)} if front else {}
    return facts


def identity(name: str) -> str:
    """Repository and commit; a branch or a tag is looked up, a commit is not."""
    repository, revision = parse(name)
    pinned = re.fullmatch(r"[0-9a-f]{40}", revision)
    commit = revision if pinned else _snapshot(repository, revision or "main", ["config.json", "*.md"]).name
    return f"{repository}@{commit}"


def parse(name: str) -> tuple[str, str]:
    """`"org/name@revision"` -> repository and revision; the revision is empty where none is named."""
    match = re.fullmatch(rf"((?:{_DATASETS})?(?:[\w.-]+/)?[\w.-]+)(?:@([\w./-]+))?", name)
    if match is None:
        raise SourceError("not a hub repository", found=f"hf:{name}", allowed=_ALLOWED)
    return match.group(1), match.group(2) or ""


def _patterns(repository: str) -> tuple[str, ...]:
    return DATASET_PATTERNS if repository.startswith(_DATASETS) else PATTERNS


def _hub_cache() -> Path:
    # huggingface_hub reads these once, when imported; a test or a launcher may set them later.
    if folder := os.environ.get("HF_HUB_CACHE"):
        return Path(folder).expanduser()
    if folder := os.environ.get("HF_HOME"):
        return Path(folder).expanduser() / "hub"
    return cache_dir() / "hub"


def _snapshot(repository: str, revision: str, patterns: Sequence[str] = ()) -> Path:
    """The folder, as far as its files match."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        IncompleteSnapshotError,
        LocalEntryNotFoundError,
    )

    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    here = _hub_cache()

    def download(folder: Path, local: bool) -> Path:
        return Path(
            snapshot_download(
                repository.removeprefix(_DATASETS),
                repo_type="dataset" if repository.startswith(_DATASETS) else "model",
                revision=revision,
                cache_dir=folder,
                allow_patterns=list(patterns or _patterns(repository)),
                local_files_only=local,
            )
        )

    try:
        return download(here, local=offline)
    except LocalEntryNotFoundError as error:
        whole = "whole " if isinstance(error, IncompleteSnapshotError) else ""
        failed = isinstance(error.__cause__, HfHubHTTPError)
        answer = str(error.__cause__).splitlines()[0] if failed else ""
    except HFValidationError as error:
        raise SourceError("not a hub repository", found=error, allowed=_ALLOWED) from None
    except Exception as error:  # of the hub's client, its transport and the disk; each is explained
        raise _explained(error, repository, revision, here) from None
    try:
        return download(Path(HF_HUB_CACHE), local=True)
    except LocalEntryNotFoundError:
        raise SourceError(
            f"{'the hub fails' if answer else 'no network'}, and hf:{repository}@{revision} "
            f"is not {whole}in the cache",
            found="HF_HUB_OFFLINE is set" if offline else answer or "the hub cannot be reached",
            next="use a package: or path: source, or put the model into the folder that HF_HUB_CACHE names",
        ) from None


def _explained(error: Exception, repository: str, revision: str, folder: Path) -> CompressError:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return SourceError(
            f"hf:{repository} asks for consent",
            next="accept its terms on the hub and log in with `hf auth login`",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return SourceError(f"hf:{repository} has no such revision", found=revision, next="see the hub")
    if isinstance(error, errors.RepositoryNotFoundError):
        return SourceError(
            "no such repository on the hub, or it is private",
            found=repository,
            next="check its name; a data set is hf:datasets/org/name",
        )
    if isinstance(error, errors.HTTPError):  # an OSError too, but not one of the disk
        return SourceError(
            f"the hub did not deliver hf:{repository}@{revision}",
            found=str(error).splitlines()[0],
            next="try again, or use a package: or path: source",
        )
    if isinstance(error, OSError):
        try:
            with disk_errors(folder):
                raise error
        except StoreError as explained:
            return explained
    raise error
