"""A folder of this machine and another Python: what a machine far away has, without the way there.

Everything that a job needs is copied into an empty folder and run there by an interpreter that has numpy and
onnxruntime, and nothing of ours.
"""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compress.config.target import FolderTarget
from compress.graph import is_graph_file
from compress.graph.files import with_weights
from compress.runner.jobs import OUTPUTS
from compress.targets.bundle import pack
from compress.targets.local import Local, run_alone

FACTS_SECONDS = 60.0


class Folder(Local):
    config: FolderTarget
    times_card = False

    def _facts(self) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as scratch:
            command = [*self._python(), str(pack(Path(scratch))), "--facts", "onnxruntime"]
            printed = run_alone(command, Path(scratch), FACTS_SECONDS)
        facts: dict[str, Any] = json.loads(printed)
        return facts

    def run(
        self, job: Mapping[str, Any], files: Sequence[Path], scratch: Path, seconds: float
    ) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            there = Path(folder)
            copies = {str(path): copied(path, there / str(number)) for number, path in enumerate(files)}
            command = [*self._python(), pack(there).name]
            result = self.start(command, moved(job, copies), there, seconds)
            if (there / OUTPUTS).exists():
                shutil.move(there / OUTPUTS, scratch / OUTPUTS)
            return result

    def _python(self) -> list[str]:
        python = self.config.python or sys.executable
        return [os.path.abspath(shutil.which(python) or python), "-I"]  # it is started in another folder


def copied(file: Path, folder: Path) -> str:
    """Where a file, with the external weights that a graph names, lies once it is copied into `folder`."""
    folder.mkdir()
    for path in with_weights(file) if is_graph_file(file.name) else [file]:
        there = folder / path.relative_to(file.parent)
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, there)
    return str(folder / file.name)


def moved(job: Any, copies: Mapping[str, str]) -> Any:
    """`job` with the paths of the copies in place of those of the files."""
    if isinstance(job, Mapping):
        return {key: moved(value, copies) for key, value in job.items()}
    if isinstance(job, list | tuple):
        return [moved(value, copies) for value in job]
    return copies.get(job, job) if isinstance(job, str) else job
