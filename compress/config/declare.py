"""Having every option of the configuration declared."""

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from compress import config


def declare_options() -> None:
    """Have every option declared: those of this package, and those in the folders of tasks."""
    for module in iter_modules(config.__path__):  # a task may have a file of its own
        import_module(f"{config.__name__}.{module.name}")
    # Tasks stand above the configuration, hence no import statement.
    for path in sorted((Path(__file__).resolve().parents[1] / "tasks").glob("*/options.py")):
        import_module(f"compress.tasks.{path.parent.name}.options")
