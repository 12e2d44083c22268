"""`compress train`: the baseline that an experiment starts from, made by this toolkit."""

import argparse
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compress import load_config, sources
from compress.cli.console import console
from compress.cli.job import new_runner
from compress.config.run import RunConfig
from compress.errors import ConfigError
from compress.registry import declared, skips
from compress.stages.runner import StageRunner


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Arguments are Hydra overrides as for `run`. The checkpoint appears in the folder that "
        "model.source names; an interrupted training goes on after its last epoch."
    )


def run(args: argparse.Namespace, rest: Sequence[str]) -> None:
    config = load_config(*rest)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("compress").setLevel(logging.INFO)  # an epoch takes minutes
    console.print(f"checkpoint: {train(config, new_runner(config))}", soft_wrap=True)


def train(config: RunConfig, runner: StageRunner) -> Path:
    """Train `config.model`'s net as `config.train` says; the checkpoint appears where model.source points.

    Raises ConfigError where the experiment names no net, no training, or a source that is no folder here.
    An older checkpoint stays until the new one is whole.
    """
    model, net = config.model, config.model.net()
    if skips(config.train) or net is None:
        raise ConfigError(
            "the experiment says of no baseline how to train it",
            found=f"train={declared(type(config.train)).name}",
            allowed="train=supervised with model.builder=package.module:function; for texts train=head",
            next="compress train experiment=fashion_resnet",
        )
    scheme, _, name = model.source.partition(":")
    if scheme != "path" or not name:
        raise ConfigError("a baseline is written to a folder", found=model.source, allowed="path:FOLDER")
    facts = {
        "task": model.task,
        "source": model.source,
        "base_model": model.base_model or config.name,
        "license": model.license or "unknown",
    }
    from compress.data import input_digests, open_splits  # takes seconds
    from compress.recover import train_baseline
    from compress.tasks import builder_sum

    read: dict[str, Any] = {"examples": model.examples} if config.data.labelled else {}
    splits = runner.stage("split", open_splits, config.data, identity=input_digests(config.data), **read)
    teacher = getattr(config.train, "teacher", None)
    checkpoint = runner.stage(
        "train",
        train_baseline,
        config.train,
        builder=net[0],
        kwargs=net[1],
        facts=facts,
        splits=splits,
        identity=[sources.identity(teacher) if teacher else None, builder_sum(model)],
        scratch=True,
    )
    return publish(checkpoint.path, Path(name))


def publish(checkpoint: Path, folder: Path) -> Path:
    """Copy `checkpoint` to `folder`, which is replaced in one step."""
    from compress.artifact import swap  # takes seconds

    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(checkpoint, new, ignore=shutil.ignore_patterns("entry.json"))
    swap(new, folder)
    return folder
