"""The options of the configuration, each declared once, above its dataclass, with the function that does it.

Declaring one imports nothing: the function's module takes torch along, and waits until a stage calls it.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from compress.errors import ConfigError

Config = TypeVar("Config")
OPTIONS: dict[str, dict[str, type]] = {}  # group -> name -> dataclass, filled by importing compress.config
TRAITS: dict[str, frozenset[str]] = {}  # task -> what it has in common with others, by its option of `model`
_declared: dict[type, "Option"] = {}


@dataclass(frozen=True)
class Option:
    """One option of a group, such as `int8_dynamic` of `quantize`."""

    group: str
    name: str
    implementation: str | None  # "package.module:function"; None: the stage hands on what it was given
    works_on: tuple[str, ...]  # names of tasks, or traits of theirs; empty: all
    not_on: tuple[str, ...]  # names of tasks
    layers: tuple[str, ...]  # kinds of nets, as a checkpoint's summary names them; empty: all
    needs: str  # what the table of architectures has to say of a model's; empty: nothing

    def fits(self, task: str, layers: str | None = None) -> bool:
        """Whether it works on models of this task and, where that is known, of this kind of net."""
        fits_task = not self.works_on or is_one_of(task, self.works_on)
        return (
            fits_task
            and task not in self.not_on
            and (not self.layers or layers is None or layers in self.layers)
        )


def is_one_of(task: str, names: Sequence[str]) -> bool:
    """Whether a task, or a trait of it, is among the names."""
    return not {task, *TRAITS.get(task, ())}.isdisjoint(names)


def option(
    group: str,
    name: str,
    implementation: str | None,
    works_on: Sequence[str] = (),
    not_on: Sequence[str] = (),
    layers: Sequence[str] = (),
    needs: str = "",
) -> Callable[[type[Config]], type[Config]]:
    """Declare the decorated dataclass as the option `name` of `group`.

    `implementation` names the function that its stage calls, "package.module:function". `works_on` names the
    tasks whose models it works on, or traits of theirs (`ModelConfig.traits`), so that the next task is on no
    list; without it, the one in whose folder the function is, or all but those in `not_on`. `layers` likewise
    names kinds of nets: transformer, convolutional, other.
    `needs` names a field of `compress.models.architectures.Architecture`: it works where that is set.
    """
    package, _, rest = (implementation or "").partition(".tasks.")
    own = (rest.partition(".")[0],) if package == "compress" else ()

    def declare(config_type: type[Config]) -> type[Config]:
        if name in OPTIONS.setdefault(group, {}):
            raise ValueError(f"{group}={name} is already declared")
        OPTIONS[group][name] = config_type
        if group == "model":
            TRAITS[config_type.task] = frozenset(config_type.traits)  # type: ignore[attr-defined]
        tasks = tuple(works_on) or own, tuple(not_on)
        _declared[config_type] = Option(group, name, implementation, *tasks, tuple(layers), needs)
        return config_type

    return declare


def declared(config_type: type) -> Option:
    """How a dataclass was declared; raises ConfigError where it was not."""
    if config_type not in _declared:
        raise ConfigError(
            f"{config_type.__name__} is no option of a group",
            allowed=", ".join(sorted(known.__name__ for known in _declared)),
        )
    return _declared[config_type]


def implementation(config: object) -> Callable[..., Any]:
    """The function that does what `config` asks for; imports its module."""
    chosen = declared(type(config))
    if chosen.implementation is None:
        raise ConfigError(f"{chosen.group}={chosen.name} does nothing", next="leave its stage out")
    module, _, function = chosen.implementation.partition(":")
    return getattr(importlib.import_module(module), function)  # type: ignore[no-any-return]


def fitting(group: str, task: str, layers: str | None = None) -> list[str]:
    """Names of the options of `group` that work on such models."""
    return [name for name, kind in OPTIONS[group].items() if declared(kind).fits(task, layers)]


def module_of(config: object) -> str | None:
    """The module of what does what `config` asks for; None where nothing does."""
    chosen = _declared.get(type(config))
    return chosen.implementation.partition(":")[0] if chosen and chosen.implementation else None


def is_option(config: object) -> bool:
    return type(config) in _declared


def skips(config: object) -> bool:
    """Whether the stage of `config` hands on what it was given."""
    return type(config) in _declared and _declared[type(config)].implementation is None
