"""Where it is to run and with what runtime, and what it must meet."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from compress.config.checks import Checked, number
from compress.registry import option


@dataclass(kw_only=True)
class TargetConfig(Checked):
    def built_for(self, cpu_flags: Sequence[str]) -> "TargetConfig":
        """The same target, its models built for a CPU with these flags where it does not name others."""
        return self


class Rewrite(Enum):
    """Operators in place of others (`compress/rewrite`), of which each runtime has its fast ones."""

    gelu_tanh = "gelu_tanh"  # changes activations by up to 5e-4; the others change them by rounding only
    plain_norms = "plain_norms"
    plain_attention = "plain_attention"
    unsigned_weights = "unsigned_weights"
    signed_weights = "signed_weights"


@dataclass(kw_only=True)
class MachineTarget(TargetConfig):
    """What targets on one machine have in common."""

    threads: int = number(0, 0, 1024)  # 0: every physical core this process may use
    # try formats, settings, operators and numbers of threads on the target, and keep what is faster there
    tune: bool = False
    rewrites: list[Rewrite] = field(default_factory=list)  # of the graph that ships; `tune` finds them
    cpu_flags: list[str] | None = None  # null: the target's own; else those of the CPU to build for

    def built_for(self, cpu_flags: Sequence[str]) -> "MachineTarget":
        if self.cpu_flags is None and cpu_flags:
            return replace(self, cpu_flags=list(cpu_flags))
        return self


def asks_to_tune(config: TargetConfig) -> bool:
    return isinstance(config, MachineTarget) and config.tune


def rewrites_of(config: TargetConfig) -> list[Rewrite]:
    return config.rewrites if isinstance(config, MachineTarget) else []


@option("target", "local", "compress.targets.local:Local")
@dataclass(kw_only=True)
class LocalTarget(MachineTarget):
    """This machine."""

    # an execution provider of onnxruntime, as cuda; null: the CPU's, which also runs what one lacks
    provider: str | None = None


@option("target", "ssh", "compress.targets.ssh:Ssh")
@dataclass(kw_only=True)
class SshTarget(LocalTarget):
    """A host that OpenSSH reaches by your own settings and keys, without a password."""

    host: str = ""  # as in your ssh config, or user@address
    python: str | None = None  # its name or path there, with numpy and onnxruntime; null: python3
    venv: bool = (
        False  # have that Python make an environment there with numpy, our onnxruntime and tokenizers
    )
    workdir: str = ".cache/compress-target"  # there, from home on; what was sent is kept a week


@option("target", "node", "compress.targets.node:Node")
@dataclass(kw_only=True)
class NodeTarget(MachineTarget):
    """Node.js on this machine."""

    node: str | None = None  # the program; null: the one that is found by its name


class BrowserProvider(Enum):
    wasm = "wasm"
    webgpu = "webgpu"


@option("target", "browser", "compress.targets.browser:Browser")
@dataclass(kw_only=True)
class BrowserTarget(MachineTarget):
    """A page in headless Chromium on this machine."""

    provider: BrowserProvider = BrowserProvider.wasm
    browser: str | None = None  # the program; null: Chromium, Chrome or Edge, whatever is found by its name


class Precision(Enum):
    """What floats are multiplied in."""

    f32 = "f32"
    bf16 = "bf16"
    f16 = "f16"


@option("target", "openvino", "compress.targets.openvino:Openvino")
@dataclass(kw_only=True)
class OpenvinoTarget(MachineTarget):
    """OpenVINO on this machine's CPU."""

    precision: Precision = Precision.f32  # others are faster where the CPU has them, and change the answers
    fixed_shapes: bool = False  # compiled for each shape of inputs, of which there are to be few: faster


@dataclass(kw_only=True)
class BudgetConfig(Checked):
    """What the shipped model must meet; null means no limit."""

    # relative, of the primary metric; the upper end of the interval
    max_quality_drop: float | None = number(None, 0.0)
    min_speedup: float | None = number(None, 0.0)  # at every workload; lower end of the interval
    max_size_mb: float | None = number(None, 0.0)  # 1 MB = 10^6 bytes
    fallback: bool = False  # ship the last variant that meets the budget where what was asked for does not
