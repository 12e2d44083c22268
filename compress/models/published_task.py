"""What a published model is for, by optimum's inference from the class that its config.json names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from compress.registry import OPTIONS

if TYPE_CHECKING:
    from compress.config.model import ModelConfig


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
    fitting = {name: kind for name, kind in _models().items() if task in kind.published_as}
    if what in {kind.what for kind in fitting.values()}:
        return None
    found = f"its task is {task}"
    return f"{found}: try model={' or '.join(fitting)}" if fitting else f"{found}, which no option is for"


def _models() -> dict[str, type[ModelConfig]]:
    from compress.config.declare import declare_options  # needless where nothing is wrong

    declare_options()
    models: dict[str, Any] = OPTIONS["model"]
    return models
