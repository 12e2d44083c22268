"""Sparse training: what a cut will take is made small before it."""

import tempfile
from pathlib import Path

import torch_pruning as tp

from compress.config.prune import ChannelImportance, ChannelPrune
from compress.config.recover import Fit
from compress.data.images import ImageSplits
from compress.prune.pruner import fresh_defaults, torch_pruning_errors
from compress.tasks.image_classification.model import ImageClassifier
from compress.tasks.image_classification.training import ClassifierTraining
from compress.training.loop import History


def train_sparse(model: ImageClassifier, config: ChannelPrune, data: ImageSplits, out: Path) -> History:
    """Train `model` on labels with a pull of coupled weights towards zero, the weaker the stronger.

    The pull is 2^(4 (largest - norm) / (largest - smallest)) of `sparse_strength` times each weight (group
    norm regularisation, Fang et al. 2023); with bn_scale it is on the factors of batch normalisation (Liu
    et al. 2017). The last epoch's weights stay, not the most accurate.
    """
    fit = Fit(
        epochs=config.sparse_epochs,
        batch_size=64,
        learning_rate=config.sparse_learning_rate,
        label_smoothing=0.0,
        seed=config.seed,
    )
    trainer = ClassifierTraining(fit, model, None, data, keep_last=True)
    net = model.module.net
    by_factor = config.importance is ChannelImportance.bn_scale
    with torch_pruning_errors():
        pruner = (tp.pruner.BNScalePruner if by_factor else tp.pruner.GroupNormPruner)(
            net,
            model.example(),
            importance=tp.importance.BNScaleImportance()
            if by_factor
            else tp.importance.GroupMagnitudeImportance(),
            reg=config.sparse_strength,
            ignored_layers=model.output_layers(),
            **fresh_defaults(),
        )
    trainer.regularize = lambda: pruner.regularize(net)
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        return trainer.run(Path(scratch))
