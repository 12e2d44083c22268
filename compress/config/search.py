"""What `compress search` is asked for."""

import re
from dataclasses import dataclass

from compress.config.checks import Checked, number, positive, random_seed
from compress.errors import ConfigError, did_you_mean

OBJECTIVES = ("quality_drop", "latency", "size", "memory")  # of a search; all to be small
SAMPLERS = ("tpe", "nsga2")


@dataclass(frozen=True, kw_only=True)
class SearchConfig(Checked):
    """What `compress search` is asked for beside the experiment; not a part of a run."""

    objectives: tuple[str, ...]
    study: str  # its name; results go to outputs/<name>/search-<study>/
    storage: str | None = None  # a journal file or a database URL; None: a journal in that folder
    sampler: str = "tpe"
    trials: int | None = number(None, 1)  # of the study, with those of earlier and of other processes
    minutes: float | None = positive(None)  # of this process
    seed: int = random_seed()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.objectives:
            if name not in OBJECTIVES:
                raise ConfigError("unknown objective", found=name, allowed=did_you_mean(name, OBJECTIVES))
        if not self.objectives or len(set(self.objectives)) < len(self.objectives):
            raise ConfigError(
                "objective needs different entries",
                found=",".join(self.objectives) or "none",
                allowed="one or several of " + ", ".join(OBJECTIVES),
            )
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.study):
            raise ConfigError(
                "the study's name is no plain folder name",
                found=self.study,
                allowed="letters, digits, - _ and .",
            )
        if self.sampler not in SAMPLERS:
            raise ConfigError(
                "unknown sampler", found=self.sampler, allowed=did_you_mean(self.sampler, SAMPLERS)
            )
