"""What a sentence encoder is pruned by: texts, contrasted with one another."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from compress.config.prune import TransformerPrune
from compress.data import load_texts
from compress.errors import ConfigError
from compress.models.device import computing, moved
from compress.tasks.base import Model
from compress.tasks.calibration import Batches


@dataclass(frozen=True)
class Texts(Batches):
    """Without labels."""

    model: Model
    texts: Sequence[str]
    batch_size: int

    def batches(self) -> Iterator[dict[str, Tensor]]:
        return self.model.batches(self.texts, self.batch_size)

    def losses(self) -> Iterator[Tensor]:
        """`contrastive_loss`; raises ConfigError where a batch has nothing to contrast."""
        if self.batch_size == 1:
            raise ConfigError(
                "Importances by gradients contrast the texts of a batch",
                found="prune.batch_size=1",
                allowed="at least 2",
            )
        module = self.model.module.train()  # dropout makes the two passes differ
        try:
            with torch.random.fork_rng(), computing(self.model.module) as device:
                torch.manual_seed(0)
                for batch in self.batches():
                    batch = moved(batch, device)
                    yield contrastive_loss(self.model.run(batch), self.model.run(batch))
        finally:
            module.eval()

    @staticmethod
    def distance(outputs: Tensor, dense: Tensor) -> Tensor:
        return -nn.functional.cosine_similarity(outputs, dense)


def open_calibration(model: Model, splits: Path, config: TransformerPrune) -> Texts:
    return Texts(model, load_texts(splits).calibration.texts, config.batch_size)


def contrastive_loss(first: Tensor, second: Tensor, temperature: float = 0.05) -> Tensor:
    """InfoNCE of two dropout passes over the same texts, (n, hidden) each: unsupervised SimCSE
    (Gao et al. 2021). Distillation against the model itself has no gradient before anything is pruned.
    """
    logits = nn.functional.normalize(first, dim=-1) @ nn.functional.normalize(second, dim=-1).T
    return nn.functional.cross_entropy(logits / temperature, torch.arange(len(first), device=first.device))
