"""What an encoder with a head is pruned by: texts, with their labels or with what the model says of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from torch import Tensor

from compress.config.prune import TransformerPrune
from compress.data import load_splits
from compress.models.device import computing, moved
from compress.tasks.base import Model, tensors
from compress.tasks.calibration import Batches
from compress.tasks.text import losses
from compress.tasks.text.batching import in_batches
from compress.tasks.text.candidates import fewer_candidates
from compress.tasks.text.heads import HeadedModel
from compress.tasks.text.processor import Examples

CANDIDATES = 8  # passages of a query, of rerankers: all that BM25 found would be thousands of pairs


@dataclass(frozen=True)
class HeadedTexts(Batches):
    model: Model
    examples: Examples
    batch_size: int

    @property
    def headed(self) -> HeadedModel:
        return cast(HeadedModel, self.model)

    def batches(self) -> Iterator[dict[str, Tensor]]:
        return self.model.batches(self.examples, self.batch_size)

    def losses(self) -> Iterator[Tensor]:
        """Of the labels; of texts without any, of the model's own answers."""
        headed = self.headed
        rows = headed.processor.encode(self.examples)
        with computing(self.model.module) as device:
            for batch in in_batches(rows, self.batch_size):
                answers = headed.run(moved(tensors(headed.processor.feeds(batch)), device))
                labels = headed.labels(batch)
                if labels is None:
                    labels = losses.guesses(headed.kind, answers.detach())
                yield len(batch) * headed.label_error(answers, labels.to(device))

    def distance(self, outputs: Tensor, dense: Tensor) -> Tensor:  # type: ignore[override]
        return self.headed.distance(outputs, dense)


def open_calibration(model: Model, splits: Path, config: TransformerPrune) -> HeadedTexts:
    examples = fewer_candidates(load_splits(splits).calibration.examples, CANDIDATES)
    return HeadedTexts(model, examples, config.batch_size)
