"""What a run of a language model takes at the least, told by the headers of its weights."""

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from compress.errors import ModelError
from compress.models.architectures import LANGUAGE_MODELS
from compress.models.checkpoint import header, read_config, weight_files

# Bytes of a model in float32 from which on its baseline reads the checkpoint's own files, in their 16 bits:
# the same on every machine, so that its numbers are.
LARGE = 4_000_000_000


@dataclass(frozen=True)
class Needs:
    memory: int  # bytes at the least, of the stage that needs the most
    disk: int  # bytes of what the stages keep: graphs, and a checkpoint that is not as it was published


@dataclass(frozen=True)
class Size:
    """Of a checkpoint, in bytes of float32."""

    all: int
    largest: int  # tensor
    narrow: bool  # whether all are stored in half that width

    def held_whole(self, in_place: bool = False) -> Needs:
        """Where a stage has the model in float32; `in_place`: it is not the baseline, which is no new file.
        Else that is one, as is a checkpoint that is not stored as it was published."""
        return Needs(self.all, self.all // 2 if in_place else self.all if self.narrow else 2 * self.all)

    def widened_by_parts(self, bits: int) -> Needs:
        """Where the baseline is read in place and what ships has so many bits a weight, which the store and
        the artifact both keep: a matrix is there as it is widened, and turned for the product."""
        return Needs(2 * self.largest, 2 * self.all * bits // 32)


def size_of(folder: Path) -> Size:
    """Raises ModelError where files are missing, or are no safetensors."""
    numbers, narrow = [0], True
    for path in weight_files(folder):
        try:
            for tensor in header(path).values():
                numbers.append(math.prod(tensor["shape"]))
                narrow &= tensor["dtype"] in ("BF16", "F16")
        except (OSError, ValueError, TypeError, KeyError, AttributeError, struct.error) as error:
            raise ModelError(
                f"{path.name} is damaged or not safetensors",
                found=f"{path.stat().st_size} bytes; {error}",
                next="fetch it again",
            ) from None
    return Size(4 * sum(numbers), 4 * max(numbers), narrow)


def is_large(folder: Path) -> bool:
    """Whether a checkpoint's dense language model is not held in float32: its baseline is the fused graph
    that reads the checkpoint's own files, and nobody times it.

    Raises ModelError where files are missing, or are no safetensors.
    """
    size, kind = size_of(folder), read_config(folder).get("model_type")
    fused = kind in LANGUAGE_MODELS and bool(LANGUAGE_MODELS[kind].builder)
    return fused and size.narrow and size.all >= LARGE


def machine_memory() -> int | None:
    """Bytes; None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def check_memory(needs: Needs) -> None:
    """Raise ModelError for a run that this machine's memory cannot hold."""
    memory = machine_memory()
    if memory is not None and needs.memory > memory:
        raise ModelError(
            "the model is larger than this machine's memory",
            found=f"at least {needs.memory / 1e9:.1f} GB, of the stage that needs the most",
            allowed=f"{memory / 1e9:.1f} GB",
            next="a machine with more memory, a smaller model of the same family or, of one in 16 bits, "
            "export=genai and quantize=int4_blocks, mixed_blocks or int8_blocks: they widen a part at a time",
        )


def check_disk(needs: Needs, free: int, kept: int) -> None:
    """Raise ModelError for a run whose results do not fit beside what is on the disk. `kept`: bytes of those
    that earlier runs left there, which may be this run's."""
    if needs.disk > free + kept:
        raise ModelError(
            "the disk is too full for what the run keeps",
            found=f"{free / 1e9:.1f} GB free",
            allowed=f"at least {needs.disk / 1e9:.1f} GB",
            next="free some space, or set COMPRESS_CACHE to a folder on another disk",
        )
