"""Where it is to run, and what it must meet."""

from dataclasses import dataclass, field

from compress.config.checks import check_seed, within
from compress.errors import ConfigError
from compress.registry import option
from compress.schema.workload import ALLOWED, Workload


@dataclass(kw_only=True)
class TargetConfig:
    pass


@option("target", "local", "compress.benchmark.local:benchmark")
@dataclass(kw_only=True)
class LocalTarget(TargetConfig):
    """This machine."""

    threads: int = 0  # 0: every physical core this process may use
    workloads: list[str] = field(default_factory=lambda: ["1x128", "8x128"])  # see Workload
    ratio_ci: float = 0.03  # stop when the interval of every speed-up is this narrow
    max_seconds: float = 60.0
    seed: int = 0
    cpu_flags: list[str] | None = None  # null: this machine's; else those of the CPU to build for

    def __post_init__(self) -> None:
        within(self, 0, 1024, "threads")
        within(self, 0.001, 1.0, "ratio_ci")
        within(self, 1.0, 86400.0, "max_seconds")
        check_seed(self)
        if not self.workloads or len(set(self.workloads)) < len(self.workloads):
            raise ConfigError(
                "workloads needs one entry or several different ones",
                found=", ".join(self.workloads) or "an empty list",
                allowed=ALLOWED,
            )
        for workload in self.workloads:
            Workload.parse(workload)


@dataclass(kw_only=True)
class BudgetConfig:
    """What the shipped model must meet; null means no limit."""

    max_quality_drop: float | None = None  # relative, of the primary metric; upper end of the interval
    min_speedup: float | None = None  # at every workload; lower end of the interval
    max_size_mb: float | None = None  # 1 MB = 10^6 bytes
    fallback: bool = False  # ship the last variant that meets the budget where what was asked for does not

    def __post_init__(self) -> None:
        for name in ("max_quality_drop", "min_speedup", "max_size_mb"):
            if getattr(self, name) is not None:
                within(self, 0.0, float("inf"), name)
