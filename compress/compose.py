"""Command-line overrides -> a checked `RunConfig`, or one clear message."""

import dataclasses
from collections.abc import Sequence
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from compress.config import RunConfig, conf_dir, register_schemas
from compress.errors import ConfigError, did_you_mean


def load_config(overrides: Sequence[str]) -> RunConfig:
    """Compose `conf/` with `overrides`; raises ConfigError naming the allowed keys or values."""
    register_schemas()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
            return to_config(compose("config", overrides=list(overrides)))
    except (HydraException, OmegaConfBaseException, OSError) as error:
        raise _explain(error, overrides) from error


def to_config(composed: DictConfig) -> RunConfig:
    """The dataclasses behind a composed configuration, with all range checks done."""
    known = {field.name for field in dataclasses.fields(RunConfig)}
    for key in composed:
        if key not in known:
            raise ConfigError("unknown key", found=key, allowed=did_you_mean(str(key), known))
    try:
        config = cast(RunConfig, OmegaConf.to_object(composed))
    except OmegaConfBaseException as error:
        raise _explain(error, []) from error
    missing = sorted(OmegaConf.missing_keys(OmegaConf.structured(config)))
    if missing:
        raise ConfigError(
            "a setting without a default is missing",
            found=", ".join(missing),
            next=f"set it: {missing[0]}=..., or start from an experiment: experiment=minilm",
        )
    return config


def to_yaml(config: RunConfig) -> str:
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def to_plain(config: RunConfig) -> dict[str, Any]:
    """The configuration as JSON types."""
    plain = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    return cast(dict[str, Any], plain)


def options() -> dict[str, dict[str, str]]:
    """Group -> option -> the first comment of its file, for `compress list`."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted(conf_dir().glob("*/*.yaml")):
        comments = [line[1:].strip() for line in path.read_text().splitlines() if line.startswith("#")]
        wanted = [line for line in comments if line and not line.startswith("@")]
        found.setdefault(path.parent.name, {})[path.stem] = wanted[0] if wanted else ""
    return found


def _explain(error: Exception, overrides: Sequence[str]) -> ConfigError:
    """Hydra's exception as what, found, allowed, next."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConfigError):
            return cause
        if isinstance(cause, ConfigKeyError | ConfigAttributeError) and dataclasses.is_dataclass(
            cause.object_type
        ):
            keys = [field.name for field in dataclasses.fields(cause.object_type)]
            return ConfigError(
                f"unknown key in {cause.object_type.__name__}",
                found=cause.full_key,
                allowed=did_you_mean(str(cause.key), keys) if keys else "no keys",
            )
        if isinstance(cause, MissingMandatoryValue):
            return ConfigError("a setting without a default is missing", found=cause.full_key)
        if isinstance(cause, OmegaConfBaseException) and cause.__cause__ is None:
            return ConfigError(str(cause.msg or cause).splitlines()[0], found=cause.full_key)
        cause = cause.__cause__
    for override in overrides:  # an option or a group that does not exist
        group, _, option = override.lstrip("+~").partition("=")
        known = options()
        if group in known and option not in known[group]:
            return ConfigError(
                f"unknown option for {group}", found=option, allowed=did_you_mean(option, known[group])
            )
        top = group.partition(".")[0].partition("@")[0].lstrip("/")
        names = {field.name for field in dataclasses.fields(RunConfig)} | {"experiment", "hydra"}
        if top not in names:
            return ConfigError("unknown key", found=group, allowed=did_you_mean(top, names))
    return ConfigError(str(error).splitlines()[0], next="compress list shows all options")
