"""What models are for, a folder each: `compress/tasks/<name>/`.

Tasks are named as in a checkpoint's compress.json and imported when one is needed, so that nothing else loads
them and a stage's code version holds the task of its own model alone.
"""

from importlib import import_module
from pathlib import Path

from compress.errors import ModelError, did_you_mean
from compress.models.checkpoint import read_facts
from compress.tasks.base import Feeds, Processor

__all__ = ["TASKS", "Feeds", "Processor", "open_processor", "task_of"]

TASKS = ("sentence_embedding", "image_classification", "language_modeling")
# Names in checkpoints of earlier releases.
_FORMER = {
    "encoder": "sentence_embedding",
    "image_classifier": "image_classification",
    "causal_lm": "language_modeling",
}


def task_of(checkpoint: Path) -> str:
    """Name of the task of a checkpoint; raises ModelError where it is none of ours."""
    family = read_facts(checkpoint).family
    name = _FORMER.get(family, family)
    if name not in TASKS:
        raise ModelError(
            f"{checkpoint} is of an unknown family", found=name, allowed=did_you_mean(name, TASKS)
        )
    return name


def open_processor(checkpoint: Path) -> Processor:
    """What turns examples into inputs of the checkpoint's graphs; loads neither weights nor torch.

    Raises ModelError where a file that it needs is missing or damaged.
    """
    module = import_module(f"compress.tasks.{task_of(checkpoint)}.processor")
    processor: Processor = module.open_processor(checkpoint)
    return processor
