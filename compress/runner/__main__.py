"""`python compress/runner job.json result.json`; packed in one file, it is started by that file's name."""

import sys
from pathlib import Path

# Started as a folder, it would find its own modules where libraries look for theirs.
sys.path[0] = str(Path(__file__).resolve().parents[2])

from compress.runner.jobs import main  # noqa: E402

main(sys.argv[1:])
