"""Config type -> function. A new algorithm registers itself; nothing else has to know it."""

from collections.abc import Callable
from typing import Any, TypeVar

from compress.errors import ConfigError

Function = TypeVar("Function", bound=Callable[..., Any])
_functions: dict[type, Callable[..., Any]] = {}


def register(config_type: type) -> Callable[[Function], Function]:
    """Make the decorated function what `run` calls for configs of `config_type`."""

    def remember(function: Function) -> Function:
        if config_type in _functions:
            raise ValueError(f"{config_type.__name__} is already registered")
        _functions[config_type] = function
        return function

    return remember


def implementation(config: object) -> Callable[..., Any]:
    """The function registered for the type of `config`."""
    if type(config) not in _functions:
        raise ConfigError(
            f"no implementation for {type(config).__name__}",
            allowed=", ".join(sorted(known.__name__ for known in _functions)),
        )
    return _functions[type(config)]
