"""What must be there before the seconds are spent in which torch is loaded."""

from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from pathlib import Path

from compress.config.run import RunConfig
from compress.errors import SourceError
from compress.registry import skips
from compress.schema.workload import Workload
from compress.sources import fetch
from compress.targets import open_target
from compress.tasks.base import refuse_cache


def check(configs: Iterable[RunConfig]) -> None:
    """Raises SourceError for a path that does not exist, ConfigError for a workload that
    the task has not, ConfigError or BenchmarkError for a target that lacks what it is asked for."""
    targets = {}
    for config in configs:
        check_sources(config)
        if not config.model.has_cache:
            for workload in config.benchmark.workloads:
                refuse_cache(Workload.parse(workload))
        targets[repr(config.target)] = config.target
    for target in targets.values():
        open_target(target).facts()


def check_sources(config: RunConfig) -> None:
    """Raises SourceError for a path that does not exist, in the model or in the data."""
    _check_baseline(config)
    _check_paths(config)


def _check_paths(config: object) -> None:
    if isinstance(config, dict):
        for value in config.values():
            _check_paths(value)
    if not is_dataclass(config):
        return
    for item in fields(config):
        value = getattr(config, item.name)
        if item.name not in ("source", "texts") or not isinstance(value, str):
            _check_paths(value)
        elif not value.startswith(("hf:", "package:", "debian:")):
            fetch(value)


def _check_baseline(config: RunConfig) -> None:
    """Raises SourceError where the model is what `compress train` would make, and has not made yet."""
    if skips(config.train):
        return
    scheme, _, name = config.model.source.partition(":")
    if scheme == "path" and not Path(name).expanduser().exists():
        raise SourceError(
            "the baseline of this experiment is not trained yet",
            found=f"no folder {Path(name).expanduser().absolute()}",
            next=f"compress train experiment={config.name}",
        )
