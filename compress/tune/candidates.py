"""What is worth trying on a target, from its facts. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from compress.config.quantize import Float16, Int8, Int8Dynamic, Int8Static, QuantizeConfig
from compress.config.run import RunConfig
from compress.config.target import MachineTarget, OpenvinoTarget, Precision, Rewrite
from compress.graph.session import CPU
from compress.registry import declared

FORMAT, SETTINGS, OPERATORS, THREADS = "format", "settings", "operators", "threads"
_CAPABILITIES = {Precision.bf16: "BF16", Precision.f16: "FP16"}  # OpenVINO's names
_SIGNS = (Rewrite.unsigned_weights, Rewrite.signed_weights)


@dataclass(frozen=True)
class Candidate:
    """A whole run's configuration, one step from what is kept."""

    kind: str
    name: str
    config: RunConfig
    exact: bool = False  # its numbers are those of what is kept, but for rounding


def formats(config: RunConfig, facts: Mapping[str, Any], provider: str) -> list[Candidate]:
    """Other ways to store weights and activations: integers as the runtime multiplies them, 16-bit floats
    on what is no CPU."""
    asked = config.quantize
    found: list[tuple[str, QuantizeConfig]] = []
    integers = facts["runtime"].get("integer_products")
    if type(asked) is Int8Dynamic:
        found.append(("int8_static", Int8Static(**_shared(asked))))
    elif type(asked) is Int8Static and (integers is None or "MatMulInteger" in integers):
        found.append(("int8_dynamic", Int8Dynamic(**_shared(asked))))
    if provider != CPU and type(asked) is not Float16:
        found.append(("fp16", Float16()))
    return [
        Candidate(FORMAT, name, replace(config, quantize=option))
        for name, option in found
        if declared(type(option)).fits(config.model.task)
    ]


def _shared(asked: QuantizeConfig) -> dict[str, Any]:
    """What both int8 options are told; how much has to be covered is for each to say."""
    return {item.name: getattr(asked, item.name) for item in fields(Int8) if item.name != "min_coverage"}


def settings(config: RunConfig, facts: Mapping[str, Any]) -> list[Candidate]:
    """Of OpenVINO: shorter floats where the CPU has them, and fixed shapes; what was asked for stays."""
    target = config.target
    if not isinstance(target, OpenvinoTarget):
        return []
    able = facts["runtime"]["capabilities"]
    precisions = [each for each, name in _CAPABILITIES.items() if name in able]
    shorter = precisions[:1] if target.precision is Precision.f32 else []
    fixed = not target.fixed_shapes and not config.model.has_cache  # a cache grows token by token
    steps: list[dict[str, Any]] = [{"precision": each} for each in shorter]
    steps += [{**step, "fixed_shapes": True} for step in ({}, *steps) if fixed]
    return [
        Candidate(
            SETTINGS, _words(step), replace(config, target=replace(target, **step)), "precision" not in step
        )
        for step in steps
    ]


def _words(step: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={str(getattr(value, 'value', value)).lower()}" for name, value in step.items())


def operators(config: RunConfig, facts: Mapping[str, Any], inexact: Iterable[Rewrite]) -> list[Candidate]:
    """Every rewriting of the graph that the configuration has not yet; signs of weights not where a runtime
    multiplies integers only in its own format, which says their sign."""
    only_qdq = facts["runtime"].get("integer_products") == ["QDQ"]
    found = [each for each in Rewrite if each not in _rewrites(config) and not (only_qdq and each in _SIGNS)]
    return [
        Candidate(OPERATORS, each.value, rewriting(config, [each]), each not in inexact) for each in found
    ]


def together(config: RunConfig, others: Sequence[Candidate]) -> Candidate:
    """The rewritings of all of these in one graph."""
    had = _rewrites(config)
    more = [each for other in others for each in _rewrites(other.config) if each not in had]
    name = " + ".join(each.value for each in [*had, *more])
    return Candidate(OPERATORS, name, rewriting(config, more), all(other.exact for other in others))


def rewriting(config: RunConfig, more: Sequence[Rewrite]) -> RunConfig:
    assert isinstance(config.target, MachineTarget)
    return replace(config, target=replace(config.target, rewrites=[*_rewrites(config), *more]))


def _rewrites(config: RunConfig) -> list[Rewrite]:
    assert isinstance(config.target, MachineTarget)
    return config.target.rewrites


def thread_counts(cores: int) -> list[int]:
    """Powers of two, one less than all cores, which leaves one to others, and all."""
    powers = {1 << power for power in range(cores.bit_length()) if 1 << power <= cores}
    return sorted({*powers, max(1, cores - 1), cores})
