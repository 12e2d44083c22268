"""What the reports say of a task, a file each: `sections(report)`, and `summary(report)` for the model card.

A file is found because it lies here; of a report that is about something else it says nothing.
"""

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType


def tasks() -> list[ModuleType]:
    return [import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__)]
