"""What a published model is for, by optimum's inference from the class that its config.json names."""

from collections.abc import Mapping
from typing import Any

# Of transformers' tasks, what our errors call a model of them, and the option of the group model.
_OPTIONS = {
    "text-generation": ("a language model", "causal_lm"),
    "feature-extraction": ("a sentence encoder", "encoder"),
    "fill-mask": ("a sentence encoder", "encoder"),
    "image-classification": ("a classifier of images", "image_classifier"),
}


def other_task(config: Mapping[str, Any], what: str) -> str | None:
    """Advice for a model that is not `what` was looked for: its task, and the option that is for it.

    None where config.json names no class of transformers, or the task is that of `what`.
    """
    import transformers
    from optimum.exporters.tasks import TasksManager  # takes seconds

    try:
        task = TasksManager.infer_task_from_model(getattr(transformers, config["architectures"][0]))
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, ImportError):
        return None
    name, option = _OPTIONS.get(task, ("", ""))
    if name == what:
        return None
    return f"its task is {task}" + (f": try model={option}" if option else ", which no option is for")
