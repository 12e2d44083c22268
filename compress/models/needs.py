"""What a run of a language model takes at the least, told by the headers of its weights."""

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from compress.errors import ModelError
from compress.models.checkpoint import header, weight_files


@dataclass(frozen=True)
class Needs:
    memory: int  # bytes at the least: of the stage that holds the dense model in float32, for the baseline
    disk: int  # bytes of what the stages keep: float graphs, and a checkpoint that is not as it was published


def needs_of(folder: Path) -> Needs:
    """Raises ModelError where files are missing, or are no safetensors."""
    numbers, narrow = 0, True
    for path in weight_files(folder):
        try:
            for tensor in header(path).values():
                numbers += math.prod(tensor["shape"])
                narrow &= tensor["dtype"] in ("BF16", "F16")
        except (OSError, ValueError, TypeError, KeyError, AttributeError, struct.error) as error:
            raise ModelError(
                f"{path.name} is damaged or not safetensors",
                found=f"{path.stat().st_size} bytes; {error}",
                next="fetch it again",
            ) from None
    wide = 4 * numbers
    return Needs(memory=wide, disk=wide if narrow else 3 * wide)


def machine_memory() -> int | None:
    """Bytes; None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def check_memory(needs: Needs) -> None:
    """Raise ModelError for a model that this machine cannot hold in float32."""
    memory = machine_memory()
    if memory is not None and needs.memory > memory:
        raise ModelError(
            "the model is larger than this machine's memory",
            found=f"at least {needs.memory / 1e9:.1f} GB, the dense model in float32, which the baseline is "
            "exported and timed in",
            allowed=f"{memory / 1e9:.1f} GB",
            next="a machine with more memory, or a smaller model of the same family",
        )
