"""What one run is asked for: an option of every group.

A group is a base dataclass without fields, one dataclass per option, one YAML per option in `conf/`.
The base has no fields so that a key of another option is an error and never silently ignored.
Nothing heavy is imported here: a wrong configuration has to fail before torch is loaded.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from compress.config.benchmark import BenchmarkConfig
from compress.config.checks import FolderName
from compress.config.data import DataConfig
from compress.config.declare import declare_options
from compress.config.evaluate import EvaluateConfig
from compress.config.export import ExportConfig
from compress.config.model import ModelConfig
from compress.config.prune import PruneConfig
from compress.config.quantize import QuantizeConfig
from compress.config.recover import RecoverConfig, TrainConfig
from compress.config.ship import ShipConfig
from compress.config.space import Choice
from compress.config.target import BudgetConfig, TargetConfig
from compress.errors import ConfigError, did_you_mean
from compress.registry import OPTIONS, declared, fitting


def conf_dir() -> Path:
    """The folder of YAML files: inside an installed wheel, else beside the package in a checkout."""
    here = Path(__file__).resolve().parents[1]
    for folder in (here / "conf", here.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise ConfigError("the configuration folder is missing", next="reinstall the package")


@dataclass(kw_only=True)
class RunConfig:
    name: str = MISSING  # of the experiment; results go to outputs/<name>/
    model: ModelConfig = MISSING
    data: DataConfig = MISSING
    prune: PruneConfig = MISSING
    recover: RecoverConfig = MISSING
    export: ExportConfig = MISSING
    quantize: QuantizeConfig = field(
        default=MISSING, metadata={"search": Choice(("int8_dynamic", "int8_static", "none"))}
    )
    evaluate: EvaluateConfig = MISSING
    target: TargetConfig = MISSING
    benchmark: BenchmarkConfig = field(default_factory=BenchmarkConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    ship: ShipConfig = field(default_factory=ShipConfig)
    train: TrainConfig = MISSING  # of a baseline, by `compress train` alone

    def __post_init__(self) -> None:
        FolderName().check("name", self.name)
        self._check_task()
        metrics = self.evaluate.metrics(self.data)  # known now, not after an hour of training
        primary = getattr(self.evaluate, "primary", None)
        if primary is not None and primary not in metrics:
            raise ConfigError(
                "evaluate.primary names no metric", found=primary, allowed=did_you_mean(primary, metrics)
            )

    def _check_task(self) -> None:
        """Raise ConfigError for options that do not work on the kind of model, naming those that do."""
        task, wrong, allowed, example = self.model.task, [], [], []
        for group in (item.name for item in dataclasses.fields(self) if item.name in OPTIONS):
            chosen = declared(type(getattr(self, group)))
            if not chosen.fits(task):
                names = fitting(group, task)
                wrong.append(f"{group}={chosen.name}")
                allowed.append(f"{group}={','.join(names)}")
                example.append(f"{group}={next((name for name in names if name != 'none'), 'none')}")
        if wrong:
            raise ConfigError(
                f"{' '.join(wrong)} {'does' if len(wrong) == 1 else 'do'} not work on this kind of model",
                found=f"model={declared(type(self.model)).name}, whose task is {task}",
                allowed=" ".join(allowed),
                next="for example " + " ".join(example),
            )
        self.ship.check_task(task)
        for group in (item.name for item in dataclasses.fields(self) if item.name in OPTIONS):
            try:
                getattr(self, group).check_task(task)
            except ConfigError as error:
                raise ConfigError(f"{group}.{error}") from None


def register_schemas() -> None:
    """Tell Hydra the schema of the run and of every option; `conf/` refers to them by name. One that has no
    file there is an option as it is."""
    declare_options()
    store, files = ConfigStore.instance(), conf_dir()
    store.store(name="run_schema", node=RunConfig)
    for group, options in OPTIONS.items():
        for name, node in options.items():
            store.store(group=group, name=f"{name}_schema", node=node)
            if not (files / group / f"{name}.yaml").is_file():
                store.store(group=group, name=name, node=node)


def leaves(config: object, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Dotted name and value of every setting in a dataclass tree."""
    for item in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}", value
