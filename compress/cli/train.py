"""`compress train`: the baseline that an experiment starts from, made by this toolkit."""

import os
import shutil
from pathlib import Path

from compress.config.model import ImageClassifierModel
from compress.config.recover import NoTrain
from compress.config.run import RunConfig
from compress.data import input_digests, open_splits
from compress.errors import ConfigError
from compress.models import identity
from compress.recover import train_baseline
from compress.stages.runner import Road


def train(config: RunConfig, road: Road) -> Path:
    """Train `config.model`'s net as `config.train` says; the checkpoint appears where model.source points.

    Raises ConfigError where the experiment names no net, no training, or a source that is no folder here.
    An older checkpoint stays until the new one is whole.
    """
    model = config.model
    if isinstance(config.train, NoTrain) or not isinstance(model, ImageClassifierModel) or not model.builder:
        raise ConfigError(
            "the experiment says of no baseline how to train it",
            found=f"train={'none' if isinstance(config.train, NoTrain) else 'supervised'}",
            allowed="train=supervised with model.builder=package.module:function",
            next="compress train experiment=fashion_resnet",
        )
    scheme, _, name = model.source.partition(":")
    if scheme != "path" or not name:
        raise ConfigError("a baseline is written to a folder", found=model.source, allowed="path:FOLDER")
    facts = {
        "source": model.source,
        "base_model": model.base_model or config.name,
        "license": model.license or "unknown",
    }
    splits = road.stage("split", open_splits, config.data, identity=input_digests(config.data))
    teacher = getattr(config.train, "teacher", None)
    made = road.stage(
        "train",
        train_baseline,
        config.train,
        splits,
        extra=(model.builder, dict(model.builder_kwargs), facts),
        identity=identity(ImageClassifierModel(source=teacher)) if teacher else None,
        scratch=True,
    )
    return publish(made.path, Path(name))


def publish(made: Path, folder: Path) -> Path:
    """Copy a checkpoint to `folder`, which is replaced in one step."""
    new, old = (folder.with_name(f".{folder.name}.{word}") for word in ("new", "old"))
    for each in (new, old):
        shutil.rmtree(each, ignore_errors=True)
    shutil.copytree(made, new, ignore=shutil.ignore_patterns("entry.json"))
    if folder.exists():
        os.replace(folder, old)
    os.replace(new, folder)
    shutil.rmtree(old, ignore_errors=True)
    return folder
