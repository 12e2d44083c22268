"""Gradients summed over the calibration examples, left in the weights: what Taylor importance reads."""

import torch
from torch import Tensor, nn

from compress.errors import ConfigError
from compress.models import Model
from compress.prune.examples import Examples, Labelled, inputs_of


def accumulate(model: Model, examples: Examples, batch_size: int) -> None:
    """Of the labels' cross-entropy, or, where there are none, of `contrastive_loss`."""
    model.module.zero_grad()
    if isinstance(examples, Labelled):
        for inputs, labels in examples.batches(model, batch_size):
            loss = nn.functional.cross_entropy(model.run(inputs), labels, reduction="sum")
            loss.backward()  # type: ignore[no-untyped-call]
        return
    if batch_size == 1:
        raise ConfigError(
            "Taylor importance contrasts the texts of a batch",
            found="prune.batch_size=1",
            allowed="at least 2",
        )
    model.module.train()  # dropout makes the two passes differ
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for inputs in inputs_of(model, examples, batch_size):
            first, second = model.run(inputs), model.run(inputs)
            contrastive_loss(first, second).backward()  # type: ignore[no-untyped-call]
    model.module.eval()


def contrastive_loss(first: Tensor, second: Tensor, temperature: float = 0.05) -> Tensor:
    """InfoNCE of two dropout passes over the same texts, (n, hidden) each: unsupervised SimCSE
    (Gao et al. 2021). Distillation against the model itself has no gradient before anything is pruned.
    """
    logits = nn.functional.normalize(first, dim=-1) @ nn.functional.normalize(second, dim=-1).T
    return nn.functional.cross_entropy(logits / temperature, torch.arange(len(first)))
