"""What is copied to a target: the runner as one file that any Python starts, models and feeds."""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import compress.runner
from compress.graph import is_graph_file
from compress.graph.files import with_weights
from compress.system.disk import sha256_file

SOURCES = Path(compress.runner.__file__).parent
RUNNER = "runner.pyz"
CHECKPOINT = "checkpoint"  # in an artifact: for torch, which runs on no target
_START = "import sys\n\nfrom compress.runner.jobs import main\n\nmain(sys.argv[1:])\n"


def pack(folder: Path) -> Path:
    """`runner.pyz` in `folder`: `python -I runner.pyz job.json result.json`; the same bytes each time."""
    contents = {
        f"compress/runner/{source.name}": source.read_text()
        for source in sorted(SOURCES.glob("*.py"))
        if source.name != "__main__.py"
    }
    contents |= {"compress/__init__.py": "", "__main__.py": _START}
    packed = folder / RUNNER
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in contents.items():
            file.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)
    return packed


@dataclass(frozen=True)
class Placed:
    path: Path  # on this machine
    sha256: str
    place: str  # in the folder in which the job runs there


Files = Sequence[Placed]


def placed(files: Sequence[Path]) -> tuple[Files, dict[str, str]]:
    """Where these files lie on a target, with the external weights that graphs name, each in a folder of its
    own; and for each its path here -> its path there. The runner lies beside the folders. Of a folder all
    files are placed, but those of a checkpoint in it."""
    there, copies = [], {}
    for number, file in enumerate(files):
        for path in _parts(file):
            name = path.relative_to(file if file.is_dir() else file.parent).as_posix()
            place = name if name == RUNNER else f"{number}/{name}"
            there.append(Placed(path, sha256_file(path), place))
            if path == file or file.is_dir():
                copies[str(path)] = place
    return there, copies


def _parts(file: Path) -> list[Path]:
    if file.is_dir():
        inside = (path for path in sorted(file.rglob("*")) if path.is_file())
        return [path for path in inside if CHECKPOINT not in path.relative_to(file).parts]
    return with_weights(file) if is_graph_file(file.name) else [file]


def moved(job: Any, copies: Mapping[str, str]) -> Any:
    """`job` with the paths of the copies in place of those of the files."""
    if isinstance(job, Mapping):
        return {key: moved(value, copies) for key, value in job.items()}
    if isinstance(job, list | tuple):
        return [moved(value, copies) for value in job]
    return copies.get(job, job) if isinstance(job, str) else job
