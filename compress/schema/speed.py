"""What a report tells of the time that a graph takes, and of what was chosen for its target."""

from dataclasses import dataclass, field
from typing import Any

from compress.schema.estimates import Estimate

# Classes of operators, for readers: what a call's time is spent on.
INTEGER, FLOAT, ATTENTION = "integer products", "float products", "attention"
ROUNDING = "rounding to integers"
NORMS, ACTIVATIONS, SUMS = "normalisation", "activation functions", "sums and the like"
MOVES, OTHER = "data movement", "other"
KINDS = (INTEGER, FLOAT, ATTENTION, ROUNDING, NORMS, ACTIVATIONS, SUMS, MOVES, OTHER)


@dataclass(frozen=True, kw_only=True)
class Operator:
    """All nodes of one type in one call, as they ran after onnxruntime's own optimisations."""

    op_type: str
    kind: str  # of KINDS
    nodes: int
    ms: float
    macs: int = 0
    weight_bytes: int = 0  # that its products read


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Where one call's time goes."""

    operators: tuple[Operator, ...]  # the slowest first
    weight_types: tuple[str, ...] = ()  # of the integer products: int8, uint8
    fallback_nodes: int = 0  # that the execution provider lacks, so that another one runs them


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What this machine reaches at best with so many threads; a multiply-accumulate is two operations."""

    threads: int
    bandwidth_gb_per_s: float  # reading memory
    float32_gflops: float
    integer_gops: dict[str, float]  # by the type of the weights
    cache_bytes: int | None  # of the last level
    node_us: float = 0.0  # microseconds to start a node that computes next to nothing


@dataclass(frozen=True, kw_only=True)
class Floor:
    """The least time a call can take on this machine: its products at full speed, its weights read once."""

    memory_ms: float  # 0 where the weights may stay in the cache
    integer_ms: float
    float_ms: float

    @property
    def ms(self) -> float:
        return max(self.memory_ms, self.integer_ms + self.float_ms)


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One candidate of `target.tune`, timed in one job with what had been kept until then."""

    kind: str  # format, settings, operators, threads
    name: str  # int8_static, precision=bf16, gelu_tanh, 2 threads, ...
    beside: str  # what it was timed beside, by its name; of threads those it had to beat
    # by workload, over `beside`; empty where it was not timed
    speedup: dict[str, Estimate] = field(default_factory=dict)
    overall: Estimate | None = None  # geometric mean of the speed-ups
    drop: Estimate | None = None  # of the primary metric on select, where it changes the numbers
    kept: bool = False
    reason: str = ""  # why it was or was not


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What was tried on the target, and what of it is in all that was measured."""

    tried: tuple[Tried, ...]
    chosen: dict[str, Any]  # settings of the run, by their dotted names, as they were chosen
    dense_threads: int  # with which the dense model is fastest, and was timed
