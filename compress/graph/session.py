"""The one place that opens an ONNX file with onnxruntime in this process.

Two files that run without the package open theirs alone: runner/with_onnxruntime.py and graph/probe.py.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime
from onnxruntime.capi.build_and_package_info import package_name

from compress.errors import ConfigError, ModelError, did_you_mean
from compress.runner.machine import threads_available

CPU = "CPUExecutionProvider"
_ERRORS_ONLY = 3  # as onnxruntime counts severities; that an input has a default is no news


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """With what a graph is run."""

    provider: str = CPU  # operators that it lacks run on the CPU
    threads: int = 0  # of one operator; 0: every physical core this process may use
    prepack: bool = True  # without, float weights are in memory once, and are multiplied more slowly
    fold: bool = True  # without, what constants alone make is computed anew each time, and not held in memory
    weights_folder: Path | None = None  # of the external weights of a graph that is given as bytes


def open_session(model: Path | bytes, runtime: Runtime = Runtime()) -> onnxruntime.InferenceSession:
    """A session of an ONNX file, or of a serialised graph.

    Raises ModelError where onnxruntime cannot load it, ConfigError for a provider that is not installed.
    """
    check_provider(runtime.provider)
    options = onnxruntime.SessionOptions()
    # Left to itself onnxruntime counts the machine's cores: threads that share one spin against each other.
    options.intra_op_num_threads = runtime.threads or threads_available()
    options.log_severity_level = _ERRORS_ONLY
    if not runtime.prepack:
        options.add_session_config_entry("session.disable_prepacking", "1")
    if runtime.weights_folder is not None:
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(runtime.weights_folder)
        )
    providers = list(dict.fromkeys([runtime.provider, CPU]))
    try:
        left_out = None if runtime.fold else ["ConstantFolding"]
        return onnxruntime.InferenceSession(model, options, providers, disabled_optimizers=left_out)
    except Exception as error:  # onnxruntime's exceptions share no base class but this
        name = model.name if isinstance(model, Path) else "the graph"
        raise ModelError(f"onnxruntime cannot load {name}", found=str(error)) from None


@contextmanager
def running() -> Iterator[None]:
    """Raise ModelError where a graph that was loaded cannot be run."""
    try:
        yield
    except Exception as error:  # onnxruntime's exceptions share no base class but this
        raise ModelError("onnxruntime cannot run the graph", found=" ".join(str(error).split())) from error


def full_name(provider: str) -> str:
    """`cuda` is CUDAExecutionProvider; what is no provider's name stays as it is."""
    names: dict[str, str] = {name.lower(): name for name in onnxruntime.get_all_providers()}
    given = provider.lower()
    return names.get(given, names.get(f"{given}executionprovider", provider))


def check_provider(provider: str, runtime: Mapping[str, Any] | None = None) -> None:
    """Raise ConfigError unless the runtime has this execution provider.

    `runtime` is that of a target, as `runner/with_onnxruntime.py` tells it, by default this process's.
    """
    installed = runtime["providers"] if runtime else onnxruntime.get_available_providers()
    if provider in installed:
        return
    known = onnxruntime.get_all_providers()
    if provider not in known:
        raise ConfigError(
            "onnxruntime knows no such execution provider",
            found=provider,
            allowed=did_you_mean(provider, known),
        )
    raise ConfigError(
        "the installed onnxruntime lacks an execution provider",
        found=provider,
        allowed=", ".join(installed),
        next=f"install the build of onnxruntime that has it, in place of "
        f"{runtime['distribution'] if runtime else package_name}",
    )
