"""Folders that many tests read and none writes to, built by one process for all workers of pytest-xdist."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from filelock import FileLock

Once = Callable[[str, Callable[[Path], object]], Path]


class Folders(Mapping[str, Path]):
    """Name -> folder, built when it is first asked for."""

    def __init__(self, names: tuple[str, ...], build: Callable[[str], Path]) -> None:
        self.names, self.build = names, build

    def __getitem__(self, name: str) -> Path:
        if name not in self.names:
            raise KeyError(name)
        return self.build(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def shared_folder(root: Path, name: str, build: Callable[[Path], object]) -> Path:
    """`root`/`name`, filled by `build(folder)` in the first process that asks; the others wait for it.

    What a failed `build` left is removed, and the next who asks tries again.
    """
    folder, finished = root / name, root / f"{name}.finished"
    with FileLock(root / f"{name}.lock"):
        if not finished.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            build(folder)
            finished.touch()
    return folder
