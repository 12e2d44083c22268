"""What is timed, and for how long."""

from dataclasses import dataclass, field

from compress.config.checks import Checked, number, random_seed
from compress.errors import ConfigError
from compress.schema.workload import ALLOWED, Workload


@dataclass(kw_only=True)
class BenchmarkConfig(Checked):
    workloads: list[str] = field(default_factory=lambda: ["1x128", "8x128"])  # see Workload
    max_seconds: float = number(60.0, 1.0, 86400.0)
    ratio_ci: float = number(0.03, 0.001, 1.0)  # stop when the interval of every speed-up is this narrow
    seed: int = random_seed()  # of the order of the models; another one times again what is in the cache

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.workloads or len(set(self.workloads)) < len(self.workloads):
            raise ConfigError(
                "workloads needs one entry or several different ones",
                found=", ".join(self.workloads) or "an empty list",
                allowed=ALLOWED,
            )
        for workload in self.workloads:
            Workload.parse(workload)
