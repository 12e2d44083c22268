"""The runner as one file that any Python starts: what is copied to a target."""

import zipfile
from pathlib import Path

import compress.runner

SOURCES = Path(compress.runner.__file__).parent
_START = "import sys\n\nfrom compress.runner.jobs import main\n\nmain(sys.argv[1:])\n"


def pack(folder: Path) -> Path:
    """`runner.pyz` in `folder`: `python -I runner.pyz job.json result.json`."""
    packed = folder / "runner.pyz"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for source in sorted(SOURCES.glob("*.py")):
            if source.name != "__main__.py":
                file.write(source, f"compress/runner/{source.name}")
        file.writestr("compress/__init__.py", "")
        file.writestr("__main__.py", _START)
    return packed
