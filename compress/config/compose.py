"""Command-line overrides -> a checked `RunConfig`, or one clear message."""

import dataclasses
import itertools
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from functools import cache
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationKeyError,
    OmegaConfBaseException,
    ValidationError,
)

from compress.config.declare import declare_options
from compress.config.run import RunConfig, conf_dir, register_schemas
from compress.errors import ConfigError, did_you_mean
from compress.registry import OPTIONS

OF_THE_SOURCE = {"base_model", "license", "sha256"}  # what a model's file says of its own, not of another


def load_config(overrides: Sequence[str]) -> RunConfig:
    """Compose `conf/` with `overrides`; raises ConfigError naming the allowed keys or values."""
    try:
        return to_config(_composed(overrides))
    except (HydraException, OmegaConfBaseException, OSError, ValueError) as error:
        raise _explain(error, overrides) from error


def _composed(overrides: Sequence[str], with_hydra: bool = False) -> DictConfig:
    register_schemas()
    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        composed = compose("config", overrides=list(overrides), return_hydra_config=with_hydra)
    given = {word.lstrip("+").partition("=")[0] for word in overrides}
    if "model.source" in given:
        for fact in OF_THE_SOURCE:
            if f"model.{fact}" not in given:
                composed.model[fact] = None
    return composed


def expand(overrides: Sequence[str], sweep: bool) -> list[list[str]]:
    """The overrides of every job; one job unless `sweep`, where `key=a,b` gives one for each value."""
    parsed = [override for word in [*grid(overrides), *overrides] for override in _parse(word)]
    several = next((o.input_line for o in parsed if o.is_sweep_override()), None)
    if several and not sweep:
        raise ConfigError(
            "several values for one run", found=several, next="add -m to run each; a list is key=[a,b]"
        )
    return [list(job) for job in itertools.product(*[_values(override) for override in parsed])]


def on_targets(overrides: Sequence[str]) -> dict[str, list[str]]:
    """Name of a target -> the overrides for it.

    `target=[a,b]` names several: each gets what it has of `target.key=value`; a key that none of them has
    stays for all, as the error that it is.
    """
    several = [word for word in overrides if word.startswith("target=[")]
    if not several:
        named = [word.partition("=")[2] for word in overrides if word.startswith("target=")]
        return {(named or ["local"])[-1]: list(overrides)}
    names = [name.strip() for name in several[-1][len("target=[") :].rstrip("]").split(",")]
    if len(set(names)) < len(names):
        raise ConfigError("a target is named twice", found=several[-1])
    options = {name: OPTIONS["target"][name] for name in names if name in OPTIONS["target"]}
    keys = {name: {field.name for field in dataclasses.fields(each)} for name, each in options.items()}
    rest = [word for word in overrides if word not in several]

    def of(name: str) -> list[str]:
        known = {word: re.sub(r"^[+~]*target\.(\w+).*", r"\1", word) for word in rest}
        elsewhere = set().union(*keys.values()) - keys.get(name, set())
        return [f"target={name}", *(word for word in rest if known[word] not in elsewhere)]

    return {name: of(name) for name in names}


def _parse(word: str) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides([word])
    except (HydraException, ValueError) as error:
        value = word.partition("=")[2].strip()
        raise _unreadable(word, gap=value.startswith(",") or value.endswith(",")) from error


def _values(override: Override) -> list[str]:
    """The override for each job: itself, or one for each value that it sweeps over."""
    word = str(override.input_line)
    if not override.is_sweep_override():
        return [word]
    try:
        values = [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
    except (HydraException, ValueError) as error:
        raise _unreadable(word) from error
    if not values:
        raise ConfigError("a sweep over no values", found=word, next="give it at least one: key=a,b")
    return values


def _unreadable(word: str, gap: bool = False) -> ConfigError:
    quote = "quote a value with a space, comma or = in it: 'group.key=\"a, b\"'"
    return ConfigError(
        "cannot read the overrides",
        found=word,
        allowed="group=option, group.key=value, group.key=a,b with -m, group.key=[a,b], group.key={a: 1}",
        next="a value is missing beside a comma" if gap else quote,
    )


def grid(overrides: Sequence[str]) -> list[str]:
    """The sweep that an experiment's own file asks for (hydra.sweeper.params), as overrides."""
    return list(
        _grid(tuple(word for word in overrides if word.startswith("experiment=") and "," not in word))
    )


@cache
def _grid(chosen: tuple[str, ...]) -> tuple[str, ...]:
    if not any(_may_sweep(word.partition("=")[2]) for word in chosen):
        return ()  # composing takes half a second
    try:
        composed = _composed(chosen, with_hydra=True)
    except HydraException:
        return ()  # composing the job says what is wrong
    params = OmegaConf.select(composed, "hydra.sweeper.params") or {}
    return tuple(f"{key}={value}" for key, value in params.items())


def _may_sweep(experiment: str) -> bool:
    """Whether its file says something to Hydra, or builds on another one's."""
    try:
        content = yaml.safe_load((conf_dir() / "experiment" / f"{experiment}.yaml").read_text())
        others = [name for name in content.get("defaults", []) if isinstance(name, str)]
    except (OSError, yaml.YAMLError, AttributeError):
        return True
    return "hydra" in content or others not in ([], ["_self_"])


def to_config(composed: DictConfig) -> RunConfig:
    """The dataclasses behind a composed configuration, with all range checks done."""
    known = {field.name for field in dataclasses.fields(RunConfig)}
    for key in composed:
        if key not in known:
            raise ConfigError("unknown key", found=key, allowed=did_you_mean(str(key), known))
    missing = sorted(str(key) for key in OmegaConf.missing_keys(composed))
    if missing:
        raise ConfigError(
            "a setting without a default is missing",
            found=", ".join(missing),
            next=f"set it: {missing[0]}=..., or start from an experiment: experiment=minilm",
        )
    try:
        return cast(RunConfig, OmegaConf.to_object(composed))
    except ConfigError as error:
        raise ConfigError(f"{_path_to_fault(composed)}{error}") from error
    except OmegaConfBaseException as error:
        raise _explain(error, []) from error


def _path_to_fault(node: DictConfig, path: str = "") -> str:
    """Of the innermost part that fails its checks, which name only their own field: `prune.keep.`."""
    for name, part in node.items():
        if isinstance(part, DictConfig):
            try:
                OmegaConf.to_object(part)
            except ConfigError:
                return _path_to_fault(part, f"{path}{name!s}.")
    return path


def to_yaml(config: RunConfig) -> str:
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def to_plain(config: RunConfig) -> dict[str, Any]:
    """The configuration as JSON types."""
    plain = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    return cast(dict[str, Any], plain)


def options_of(config: RunConfig) -> dict[str, str]:
    """Group -> option: what `to_plain` does not tell."""
    return {
        group: name
        for group, known in OPTIONS.items()
        for name, kind in known.items()
        if type(getattr(config, group)) is kind
    }


# Options that are no more -> what took their place.
_REPLACED = {("export", "optimum"): "torch"}

# Where settings lay in the manifests of older artifacts -> where they lie now.
_MOVED = {
    **{f"target.{name}": f"benchmark.{name}" for name in ("workloads", "max_seconds", "ratio_ci", "seed")},
    "prune.keep.kv_heads": "prune.keep.heads",
}


def _moved(plain: Mapping[str, Any]) -> DictConfig:
    """The configuration of an older artifact with every setting where it lies now."""
    new = OmegaConf.create(dict(plain))
    for old, now in _MOVED.items():
        group, _, name = old.rpartition(".")
        settings = OmegaConf.select(new, group)
        if isinstance(settings, DictConfig) and name in settings:
            OmegaConf.update(new, now, settings.pop(name), force_add=True)
    return new


def _known(settings: Any, option: type) -> dict[str, Any]:
    """Without the operator set, which optimum's fusion raised to what is torch's today."""
    names = {field.name for field in dataclasses.fields(option)} - {"opset"}
    return {name: value for name, value in dict(settings or {}).items() if name in names}


def replaced(chosen: Mapping[str, str]) -> dict[str, str]:
    """Group -> option of today, for those options of an older artifact that are no more."""
    return {group: _REPLACED[group, name] for group, name in chosen.items() if (group, name) in _REPLACED}


def from_plain(plain: Mapping[str, Any], chosen: Mapping[str, str]) -> RunConfig:
    """The configuration that `to_plain` and `options_of` wrote down; raises ConfigError where it is none.

    What took the place of an option that is no more has the settings that both have.
    """
    declare_options()
    if new := replaced(chosen):
        chosen = {**chosen, **new}
        plain = {**plain, **{group: _known(plain.get(group), OPTIONS[group][new[group]]) for group in new}}
    for group, known in OPTIONS.items():
        if chosen.get(group) not in known:
            raise ConfigError(
                f"unknown option for {group}",
                found=chosen.get(group, "none"),
                allowed=", ".join(known),
                next="use the release of the toolkit that wrote this configuration",
            )
    try:
        groups = {group: OmegaConf.structured(OPTIONS[group][chosen[group]]) for group in OPTIONS}
        return to_config(
            cast(DictConfig, OmegaConf.merge(OmegaConf.structured(RunConfig), groups, _moved(plain)))
        )
    except OmegaConfBaseException as error:
        raise _explain(error, []) from error


def options() -> dict[str, dict[str, str]]:
    """Group -> option -> the first comment of its file, or line of its docstring where it has none, for
    `compress list`."""
    declare_options()
    groups: dict[str, dict[str, str]] = {}
    for path in sorted(conf_dir().glob("*/*.yaml")):
        comments = [line[1:].strip() for line in path.read_text().splitlines() if line.startswith("#")]
        wanted = [line for line in comments if line and not line.startswith("@")]
        groups.setdefault(path.parent.name, {})[path.stem] = wanted[0] if wanted else ""
    for group, kinds in OPTIONS.items():
        for name, kind in kinds.items():
            groups[group].setdefault(name, (kind.__doc__ or "").strip().partition("\n")[0])
    return groups


def _explain(error: Exception, overrides: Sequence[str]) -> ConfigError:
    """Hydra's exception as what, found, allowed, next."""
    for cause in _causes(error):
        if isinstance(cause, InterpolationKeyError):
            return ConfigError("a ${...} names no setting", found=str(cause.msg).splitlines()[0])
        if isinstance(cause, ConfigKeyError | ConfigAttributeError):
            return _unknown_key(cause, overrides)
        if isinstance(cause, OmegaConfBaseException) and cause.__cause__ is None:
            return _wrong_value(cause, overrides)
    for override in overrides:  # an option or a group that does not exist
        group, _, option = override.lstrip("+~").partition("=")
        if group == "hydra/launcher":
            return _no_launcher(option)
        known = options()
        if group in known and option not in known[group]:
            return _unknown_option(group, option)
        top = group.partition(".")[0].partition("@")[0].partition("/")[0]
        names = {field.name for field in dataclasses.fields(RunConfig)} | {"experiment", "hydra"}
        if top not in names:
            return ConfigError("unknown key", found=group, allowed=did_you_mean(top, names))
    return ConfigError(str(error).splitlines()[0], next="compress list shows all options")


# Hydra cannot add a part of an entry to a dictionary of dataclasses.
_WHOLE = "to add it, write it whole: '+{}={{{}: {{source: \"path:...\"}}}}'"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


# Launchers that come with an extra of ours.
_EXTRAS = {"ray": "ray", "ray_aws": "ray", "submitit_slurm": "slurm", "submitit_local": "slurm"}


def _no_launcher(name: str) -> ConfigError:
    if extra := _EXTRAS.get(name):
        return ConfigError(
            f"hydra/launcher={name} needs the extra [{extra}], which is not installed",
            next=f"pip install 'compress-toolkit[{extra}]', or in a checkout: pip install '.[{extra}]'",
        )
    return ConfigError(
        "unknown launcher", found=name, allowed=did_you_mean(name, ["basic", "joblib", *_EXTRAS])
    )


def _unknown_option(group: str, option: str) -> ConfigError:
    new = _REPLACED.get((group, option))
    return ConfigError(
        f"unknown option for {group}",
        found=option,
        allowed=did_you_mean(option, options()[group]),
        next=f"{group}={new} took its place" if new else None,
    )


def _unknown_key(cause: OmegaConfBaseException, overrides: Sequence[str]) -> ConfigError:
    owner = cause.object_type
    if not dataclasses.is_dataclass(owner):  # a dictionary that is the user's to fill
        return ConfigError(
            "no such entry",
            found=cause.full_key,
            next=_WHOLE.format(*str(cause.full_key).rpartition(".")[::2]),
        )
    keys = [field.name for field in dataclasses.fields(owner)]
    return ConfigError(
        "unknown key" if owner is RunConfig else f"unknown key in {owner.__name__}",
        found=cause.full_key,
        allowed=did_you_mean(str(cause.key), keys) if keys else "no keys",
        next=f"{_MOVED[key]}=..." if (key := str(cause.full_key)) in _MOVED else None,
    )


def _wrong_value(cause: OmegaConfBaseException, overrides: Sequence[str]) -> ConfigError:
    key, owner, message = str(cause.full_key), cause.object_type, str(cause.msg or cause).splitlines()[0]
    given = dict(o.lstrip("+").partition("=")[::2] for o in overrides).get(key)  # the last wins
    if given is not None and key in options():
        return _unknown_option(key, given)
    if not (isinstance(cause, ValidationError) and dataclasses.is_dataclass(owner)):
        entry = next((o.lstrip("+").partition("=")[0] for o in overrides if f".{key}" in o), key)
        if message.startswith("Invalid type assigned"):
            dictionary = entry[: entry.index(f".{key}")] if f".{key}" in entry else "data.corpora"
            return ConfigError("part of an entry", found=entry, next=_WHOLE.format(dictionary, key))
        return ConfigError(message, found=key if given is None else f"{key}={given}")
    expected = get_type_hints(owner)[str(cause.key)]
    found = message if given is None else given
    return ConfigError(f"wrong value for {key}", found=found, allowed=_describe(expected, found))


def _describe(expected: Any, found: str) -> str:
    """What a type allows, in words."""
    if get_origin(expected) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(expected) if kind is not type(None)]
        return " or ".join([*(_describe(kind, found) for kind in kinds), "null"])
    if get_origin(expected) is list:
        return "a list: [a,b]"
    if isinstance(expected, type) and issubclass(expected, Enum):
        return did_you_mean(found, expected.__members__)
    if dataclasses.is_dataclass(expected):
        return "its keys: " + ", ".join(field.name for field in dataclasses.fields(expected))
    names = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}
    return names.get(expected, str(expected))
