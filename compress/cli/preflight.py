"""What must be there before the seconds are spent in which torch is loaded."""

import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from compress.config.export import AutoExport, GenaiExport
from compress.config.quantize import Int4Blocks, IntegerBlocks, MixedBlocks
from compress.config.recover import Device
from compress.config.run import RunConfig
from compress.config.target import asks_to_tune
from compress.errors import SourceError
from compress.models.checkpoint import read_config
from compress.models.kind import check_architecture
from compress.models.lengths import check_lengths
from compress.models.needs import Needs, check_disk, check_memory, is_large, size_of
from compress.registry import declared, is_option, skips
from compress.schema.workload import Workload
from compress.sources import cache_dir, fetch, peek
from compress.targets import open_target
from compress.tasks.base import refuse_cache


def check(configs: Iterable[RunConfig]) -> None:
    """Raises SourceError for a path that does not exist, ModelError for an architecture that an option does
    not know, for weights that are missing, for texts longer than the model's and for what this machine cannot
    hold, ConfigError for a workload that the task has not, ConfigError or BenchmarkError for a target that
    lacks what it is asked."""
    targets, described = {}, cache(_described)
    for config in configs:
        check_sources(config)
        if (needs := needed(config)) is not None:
            check_memory(needs)
            check_disk(needs, *disk())
        options = [option for option in vars(config).values() if is_option(option)]
        if any(declared(type(option)).needs for option in options):
            check_architecture(options, described(config.model.source), config.model.task)
        if config.model.has_cache:
            check_lengths(config, described(config.model.source), plain=_times_dense(config))
        else:
            for workload in config.benchmark.workloads:
                refuse_cache(Workload.parse(workload))
        targets[repr(config.target)] = config.target
        for trained in (config.recover, config.train):
            if getattr(trained, "device", None) is Device.cuda:
                from compress.models.device import chosen  # takes seconds, and nobody else waits for it

                chosen(Device.cuda)
    for target in targets.values():
        open_target(target).facts()


def needed(config: RunConfig) -> Needs | None:
    """Of a language model whose weights lie in a folder here; None for others. Raises ModelError for files
    that are missing or damaged."""
    if (folder := _weights(config)) is None:
        return None
    size, large, bits = size_of(folder), is_large(folder), _bits_by_parts(config)
    return size.widened_by_parts(bits) if large and bits else size.held_whole(in_place=large)


def _weights(config: RunConfig) -> Path | None:
    """The folder of a language model's weights, where it is one here."""
    scheme, _, _ = config.model.source.partition(":")
    if config.model.task != "language_modeling" or scheme != "path":
        return None
    folder = fetch(config.model.source)
    return folder if folder.is_dir() and any(folder.glob("*.safetensors*")) else None


def _times_dense(config: RunConfig) -> bool:
    """Whether the dense language model is timed, as far as is known before its weights are fetched."""
    folder = _weights(config)
    return folder is not None and not is_large(folder)


def _bits_by_parts(config: RunConfig) -> int | None:
    """Of a weight of what ships, where every stage widens one part of a large dense model at a time."""
    unchanged = skips(config.prune) and skips(config.recover)
    fused = isinstance(config.export, GenaiExport | AutoExport)
    if not (unchanged and fused) or config.evaluate.on_target or asks_to_tune(config.target):
        return None
    if not isinstance(config.quantize, IntegerBlocks) or config.quantize.fit_steps:
        return None
    return 4 if isinstance(config.quantize, Int4Blocks | MixedBlocks) else 8


def disk() -> tuple[int, int]:
    """Bytes that are free where results go, and of those that lie there."""
    folder = cache_dir()
    there = next(each for each in (folder, *folder.parents) if each.exists())
    kept = sum(each.stat().st_size for each in folder.glob("store/**/*") if each.is_file())
    return shutil.disk_usage(there).free, kept


def _described(source: str) -> dict[str, Any]:
    """config.json; nothing where it is not apart from the weights, or cannot be had: the stage that fetches
    them says so, where it is not done yet."""
    with suppress(SourceError):
        path = peek(source, "config.json")
        return {} if path is None else read_config(path.parent)
    return {}


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
