"""What models are for, a folder each: `compress/tasks/<name>/`.

A task's folder is imported when a checkpoint of it is opened, so that nothing else loads it, and so that the
version of a stage's code holds what it uses of the task of its own model alone.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress import sources
from compress.errors import ModelError, did_you_mean
from compress.models.checkpoint import read_facts, shipped_files
from compress.registry import implementation
from compress.stages.result import write_result
from compress.system.disk import sha256_file, sha256_json
from compress.tasks.base import Feeds, Model, Processor

if TYPE_CHECKING:
    from compress.config.model import ModelConfig

__all__ = [
    "TASKS",
    "Feeds",
    "Model",
    "Processor",
    "identity",
    "import_model",
    "load",
    "open_processor",
    "task_of",
]

# What tasks share lies in folders, too, but has nothing that it would be judged by.
TASKS = tuple(sorted(path.parent.name for path in Path(__path__[0]).glob("*/metrics.py")))


def task_of(checkpoint: Path) -> str:
    """Name of the task of a checkpoint; raises ModelError where it is none of ours."""
    name = read_facts(checkpoint).task
    if name not in TASKS:
        raise ModelError(f"{checkpoint} is of an unknown task", found=name, allowed=did_you_mean(name, TASKS))
    return name


def open_processor(checkpoint: Path) -> Processor:
    """What turns examples into inputs of the checkpoint's graphs; loads neither weights nor torch.

    Raises ModelError where a file that it needs is missing or damaged.
    """
    processor: Processor = part("compress.tasks.*.processor", checkpoint).open_processor(checkpoint)
    return processor


def load(checkpoint: Path, attention: str = "sdpa") -> Model:
    """Open a checkpoint written by a stage; raises ModelError when it is not intact.

    `attention` is transformers' attn_implementation: sdpa, or eager for plain products.
    """
    model: Model = part("compress.tasks.*.model", checkpoint).open_model(checkpoint, attention)
    return model


def import_model(config: ModelConfig, out: Path) -> None:
    """Fetch the model that `config` names and write it as a checkpoint; raises ModelError, SourceError."""
    implementation(config)(config, out)
    write_result(out, ships=shipped_files(out))


def identity(config: ModelConfig) -> str:
    """Digest of what `import_model` would fetch, and of `builder_sum`.

    Nothing is downloaded for a pinned source.
    """
    return sha256_json([sources.identity(config.source, config.sha256), builder_sum(config)])


def builder_sum(config: ModelConfig) -> str | None:
    """sha256 of the user's file that builds the net, which no version of our code holds; None without one.

    What that file imports in turn is not followed.
    """
    net = config.net()
    module = net[0].partition(":")[0] if net else ""
    if not module or module.startswith("compress."):
        return None
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):  # told with what is allowed where the net is built
        return None
    return sha256_file(Path(spec.origin)) if spec and spec.origin else None


def part(module: str, checkpoint: Path) -> Any:
    """A module of the checkpoint's task: "compress.tasks.*.model", which the version of a stage's code reads
    where this is called."""
    return import_module(module.replace("*", task_of(checkpoint)))
