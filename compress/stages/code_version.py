"""The version of a stage's code: a digest of all our sources that its functions can reach.

Reached is what a module imports anywhere in it, also inside functions, and what it names in a string, as
"compress.models.image_nets:resnet", a file beside it, "runner.py" or "../runner/javascript/node.mjs", or
"compress.tasks.*.model", where the star is the task of the run. Not followed are imports for type checkers,
and the strings that declare options: what implements another option is no part of this one.
"""

import ast
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from compress.errors import StoreError
from compress.system.disk import sha256_file, sha256_json

PACKAGE = Path(__file__).parents[1]
RUNS = {".py", ".mjs", ".html", ".json"}  # suffixes of sources
# Libraries whose release changes what a stage computes; no stage uses one that is not installed.
LIBRARIES = (
    *("torch", "torch-pruning", "transformers", "tokenizers", "gguf", "timm", "torchvision"),
    *("onnx", "onnx-ir", "onnxscript", "onnxruntime-genai"),
    *("numpy", "scipy", "pillow", "pyarrow", "mwparserfromhell"),
)


@cache
def code_version(roots: frozenset[str], task: str = "") -> str:
    """Digest of what these modules of ours (compress.prune.depth) reach in a run of `task`, and of the
    libraries' releases."""
    sources = {str(path.relative_to(PACKAGE)): _digest(path) for path in closure(roots, task)}
    return sha256_json([sources, library_versions()])


def library_versions() -> dict[str, str]:
    """Library -> installed version; several distributions, one a kind of accelerator, hold onnxruntime."""
    import onnxruntime
    from onnxruntime.capi.build_and_package_info import package_name

    return {**dict(_installed()), package_name: onnxruntime.__version__}


def _installed() -> Iterator[tuple[str, str]]:
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            yield name, version(name)


def closure(roots: Iterable[str], task: str = "") -> set[Path]:
    """The sources of these modules and of all that they reach, the packages around each included."""
    reached: set[Path] = set()
    waiting = [path for name in roots for path in _files(name)]
    while waiting:
        path = waiting.pop()
        if path not in reached:
            reached.add(path)
            waiting += _reached(path, task)
    return reached


@cache
def _reached(path: Path, task: str) -> frozenset[Path]:
    """What one source reaches directly; one that is no Python's is named by a Python's."""
    if path.suffix != ".py":
        return frozenset()
    found: set[Path] = set()
    for node in _executed(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value.partition(":")[0].replace("*", task)]
            if len(node.value) < 100 and Path(node.value).suffix in RUNS:
                beside = Path(os.path.normpath(path.parent / node.value))
                found |= {beside} if beside.is_file() else set()
        else:
            continue
        found.update(file for name in names for file in _files(name))
    return frozenset(found)


def _executed(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a tree without those for type checkers, and without what stands above a class."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += node.orelse
        elif isinstance(node, ast.ClassDef):
            waiting += [child for child in ast.iter_child_nodes(node) if child not in node.decorator_list]
        else:
            waiting += ast.iter_child_nodes(node)


def _files(name: str) -> list[Path]:
    """`compress.prune.depth` -> prune/__init__.py and prune/depth.py; none for what is not ours.

    The outermost package is left out: it only offers the others to users.
    """
    first, *words = name.rstrip(".").split(".")
    if first != PACKAGE.name:
        return []
    places = [PACKAGE.joinpath(*words[:count]) for count in range(1, len(words) + 1)]
    candidates = [path for place in places for path in (place / "__init__.py", place.with_suffix(".py"))]
    return [path for path in candidates if path.is_file()]


@cache
def _digest(path: Path) -> str:
    """Raises StoreError for a source that changed since this process may have read it."""
    if path in _AT_START and path.stat().st_mtime_ns != _AT_START[path]:
        raise StoreError(
            "the code changed while it ran", found=path, next="start it again: finished stages are kept"
        )
    return sha256_file(path)


_AT_START = {path: path.stat().st_mtime_ns for path in PACKAGE.rglob("*") if path.suffix in RUNS}
