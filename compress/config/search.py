"""What `compress search` is asked for."""

from dataclasses import dataclass, field

from compress.config.checks import Checked, FolderName, number, positive, random_seed
from compress.errors import ConfigError, did_you_mean

OBJECTIVES = ("quality_drop", "latency", "size", "memory")  # of a search; all to be small
SAMPLERS = ("tpe", "nsga2")


@dataclass(frozen=True, kw_only=True)
class SearchConfig(Checked):
    """What `compress search` is asked for beside the experiment; not a part of a run."""

    objectives: tuple[str, ...]
    # its name; results go to outputs/<name>/search-<study>/
    study: str = field(metadata={"allowed": FolderName()})
    storage: str | None = None  # a journal file or a database URL; None: a journal in that folder
    sampler: str = "tpe"
    trials: int | None = number(None, 1)  # of the study, with those of earlier and of other processes
    minutes: float | None = positive(None)  # of this process
    seed: int = random_seed()

    def __post_init__(self) -> None:
        super().__post_init__()
        chosen = [("objective", name, OBJECTIVES) for name in self.objectives]
        for what, name, known in [*chosen, ("sampler", self.sampler, SAMPLERS)]:
            if name not in known:
                raise ConfigError(f"unknown {what}", found=name, allowed=did_you_mean(name, known))
        if not self.objectives or len(set(self.objectives)) < len(self.objectives):
            raise ConfigError(
                "objective needs different entries",
                found=",".join(self.objectives) or "none",
                allowed="one or several of " + ", ".join(OBJECTIVES),
            )
