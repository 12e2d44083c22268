"""Runs stages: each is a function from folders to a folder, kept in the store under what it was made from."""

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from compress.registry import module_of, skips
from compress.schema.report import Stage
from compress.stages.code_version import code_version
from compress.stages.store import Entry, Store, entry_digest
from compress.system.memory import cores

log = logging.getLogger(__name__)
_WIDTH = len("evaluate recovered")  # of the column of labels


@dataclass
class StageRunner:
    """Runs the stages of one run, or reuses their results; with `dry_run` it only says what it would do."""

    store: Store
    console: Console
    task: str = ""  # of the run's model, which stages reach by its name alone
    dry_run: bool = False
    stages: list[Stage] = field(default_factory=list)
    point: str = ""  # its number where several print at the same time

    def stage(
        self,
        name: str,
        function: Callable[..., None],
        config: Any,
        /,
        *,
        identity: Any = None,
        scratch: bool = False,
        lock: Callable[[], AbstractContextManager[None]] | None = None,
        label: str = "",
        **inputs: Any,
    ) -> Entry:
        """The result of `function(config, **inputs, out=folder[, scratch=folder])`.

        An input is the result of an earlier stage, of which the function gets the folder, a dict of such
        results, or a setting. The key is the config, the inputs, `identity` (what the outside world adds,
        such as the digest of a download) and the version of the code. An option that skips the stage
        returns its first input. `lock` is held meanwhile: that of a target on which something is timed, by
        default this machine's, which other stages may hold too.
        `label` is what a reader sees in place of `name`.
        """
        if skips(config):
            first: Entry = next(iter(inputs.values()))
            return first
        roots = {function.__module__, module_of(config) or function.__module__}
        key = {
            "config": [type(config).__name__, dataclasses.asdict(config)],
            "inputs": {word: _digest(value) for word, value in inputs.items()},
            "identity": identity,
            "code": code_version(frozenset(roots), self.task),
        }
        label = label or name
        if self.dry_run:
            return self._preview(name, label, key)
        if self.console.is_terminal and not self.point:
            self._say(label, "...", end="\r")
        given = {word: _folder(value) for word, value in inputs.items()}

        def build(out: Path, scratch_folder: Path) -> None:
            function(config, **given, out=out, **({"scratch": scratch_folder} if scratch else {}))

        start = time.perf_counter()
        entry = self.store.make(name, key, build, turn=lock or partial(cores, alone=False), label=label)
        took = f"[dim]reused ({entry.seconds:.1f} s saved)[/]" if entry.reused else f"{entry.seconds:.1f} s"
        self._say(label, took)
        made = "reused" if entry.reused else "made"
        log.info("%s %s: %s, %.1f s", label, entry.digest, made, entry.seconds)
        # computed: without the wait for the machine; reused: the look-up
        seconds = time.perf_counter() - start if entry.reused else entry.seconds
        self.stages.append(
            Stage(
                name=label,
                digest=entry.digest,
                reused=entry.reused,
                seconds=seconds,
                peak_memory_bytes=entry.peak_memory_bytes,
            )
        )
        return entry

    def _say(self, label: str, text: str, end: str = "\n") -> None:
        point = f"#{self.point} " if self.point else ""
        self.console.print(f"{point}[bold]{label:<{_WIDTH}}[/] {text}", highlight=False, end=end)

    def _preview(self, name: str, label: str, key: Any) -> Entry:
        digest = entry_digest(name, key)
        if entry := self.store.find(digest):
            self._say(label, "would be reused")
            return entry
        typical = self.store.typical_seconds(name)
        estimate = (
            f"about {typical:.0f} s, as earlier ones of any model"
            if typical is not None
            else "no earlier run to estimate from"
        )
        self._say(label, f"would run, {estimate}")
        self.stages.append(Stage(name=label, digest=digest, reused=False, seconds=typical or 0.0))
        return Entry(self.store.root / "entries" / digest, digest, reused=False, seconds=typical or 0.0)


def _digest(value: Any) -> Any:
    """What of an input is part of the key."""
    if isinstance(value, Entry):
        return value.digest
    if isinstance(value, Mapping):
        return {name: _digest(item) for name, item in value.items()}
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value  # type: ignore[arg-type]


def _folder(value: Any) -> Any:
    """What of an input the function gets."""
    if isinstance(value, Mapping):
        return {name: _folder(item) for name, item in value.items()}
    return value.path if isinstance(value, Entry) else value
