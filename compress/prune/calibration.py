"""What a model is pruned by: texts, labelled images, or windows of a language model's text.

Each gives losses, one a batch and summed over its examples, to be differentiated before the next is computed;
moments of what the readers of each transformer layer read in the model as it was at the first; and distances
of the model without a layer from what it is now.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compress.config.recover import Precision
from compress.errors import ConfigError, DataError
from compress.models.moments import Moments, observing, unseen
from compress.models.walk import Walk
from compress.prune.depth import Distances, answer_distances, output_distances
from compress.tasks import Model
from compress.tasks.language_modeling.model import CausalLM
from compress.tasks.language_modeling.processor import CONTEXT
from compress.training.precision import wants_bfloat16

Readers = Sequence[Sequence[nn.Linear]]  # of every transformer layer, in order


@dataclass(frozen=True)
class Texts:
    """For encoders, which have no labels."""

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
            with torch.random.fork_rng():
                torch.manual_seed(0)
                for batch in self.batches():
                    yield contrastive_loss(self.model.run(batch), self.model.run(batch))
        finally:
            module.eval()

    def moments(self, readers: Readers) -> Iterator[Mapping[nn.Linear, Moments]]:
        return moments_of_all(self.model, self.batches(), readers)

    def distances(self) -> Distances:
        """By the mean cosine."""
        return output_distances(self.model, self.batches, lambda a, b: -nn.functional.cosine_similarity(a, b))


@dataclass(frozen=True)
class LabelledImages:
    """For classifiers."""

    model: Model
    images: NDArray[np.uint8]  # [n, height, width, channels]
    labels: NDArray[np.int64]  # [n]
    batch_size: int = 64

    def first(self, count: int) -> "LabelledImages":
        return replace(self, images=self.images[:count], labels=self.labels[:count])

    def batches(self) -> Iterator[dict[str, Tensor]]:
        return self.model.batches(self.images, self.batch_size)

    def labelled(self, size: int) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """Inputs of each batch with its labels."""
        labels = torch.split(torch.from_numpy(self.labels), size)
        return zip(self.model.batches(self.images, size), labels, strict=True)

    def losses(self) -> Iterator[Tensor]:
        """Cross-entropy of the labels."""
        for inputs, labels in self.labelled(self.batch_size):
            yield nn.functional.cross_entropy(self.model.run(inputs), labels, reduction="sum")

    def moments(self, readers: Readers) -> Iterator[Mapping[nn.Linear, Moments]]:
        return moments_of_all(self.model, self.batches(), readers)

    def distances(self) -> Distances:
        """By the mean Kullback-Leibler divergence of the answers."""
        return output_distances(self.model, self.batches, kl_divergence)


@dataclass(frozen=True)
class Windows:
    """Tokens (windows, tokens), for language models: hidden states of all are held, moments of one layer."""

    model: CausalLM
    windows: Tensor

    def losses(self) -> Iterator[Tensor]:
        """-log p of tokens drawn from what the model itself expects at each place, so that no labels are
        needed."""
        random = torch.Generator().manual_seed(0)
        for window in self.windows:
            with torch.autocast("cpu", torch.bfloat16, enabled=wants_bfloat16(Precision.auto)):
                logits = self.model.run({"input_ids": window[None]})[0].float()
            drawn = torch.multinomial(logits.detach().softmax(-1), 1, generator=random)[:, 0]
            yield nn.functional.cross_entropy(logits, drawn, reduction="sum")

    def moments(self, readers: Readers) -> Iterator[Mapping[nn.Linear, Moments]]:
        """Layer by layer, so that one may be cut when the next has read what the whole one gave."""
        walk = Walk(self.model, self.windows)
        for index, linears in enumerate(readers):
            moments = unseen(linears)
            with observing(moments, [None]):
                walk.advance(index)
            yield moments

    def distances(self) -> Distances:
        return answer_distances(self.model, self.windows)


Calibration = Texts | LabelledImages | Windows


@torch.no_grad()
def moments_of_all(
    model: Model, batches: Iterator[dict[str, Tensor]], readers: Readers
) -> Iterator[Mapping[nn.Linear, Moments]]:
    """Of all transformer layers by one pass; padding does not count."""
    moments = unseen(linear for linears in readers for linear in linears)
    mask: list[Tensor | None] = [None]
    with observing(moments, mask):
        for batch in batches:
            mask[0] = batch["attention_mask"].bool() if "attention_mask" in batch else None
            model.run(batch)
    return iter([moments] * len(readers))


def accumulate(module: nn.Module, losses: Iterator[Tensor]) -> None:
    """Sum their gradients, in the weights: what Taylor importance reads."""
    module.zero_grad()
    with torch.enable_grad():
        for loss in losses:
            loss.backward()  # type: ignore[no-untyped-call]


def contrastive_loss(first: Tensor, second: Tensor, temperature: float = 0.05) -> Tensor:
    """InfoNCE of two dropout passes over the same texts, (n, hidden) each: unsupervised SimCSE
    (Gao et al. 2021). Distillation against the model itself has no gradient before anything is pruned.
    """
    logits = nn.functional.normalize(first, dim=-1) @ nn.functional.normalize(second, dim=-1).T
    return nn.functional.cross_entropy(logits / temperature, torch.arange(len(first)))


def kl_divergence(logits: Tensor, dense: Tensor) -> Tensor:
    """KL(dense || logits) in nats, of (batch, classes) each: (batch)."""
    answers, wanted = (nn.functional.log_softmax(values, -1) for values in (logits, dense))
    return nn.functional.kl_div(answers, wanted, log_target=True, reduction="none").sum(-1)


def calibration_windows(
    model: CausalLM, texts: Sequence[str], tokens: int, corpora: Sequence[str] = ()
) -> Tensor:
    """About `tokens` of them, as windows of `CONTEXT` (or one shorter), spread evenly over `texts`.

    `corpora`: that of each text; all of them have the same part, as far as they have so much text, and take
    turns, so that the first windows are of all.
    """
    ids_of: dict[str, list[int]] = {}
    for text, corpus in zip(texts, corpora or ("",) * len(texts), strict=True):
        ids = ids_of.setdefault(corpus, [])
        if len(ids) < 4 * tokens:
            ids.extend(model.tokenize(text + "\n"))
    longest = max(map(len, ids_of.values()), default=0)
    width = min(CONTEXT, longest)
    if width < 2:
        raise DataError("too little text to calibrate with", found=f"{longest} tokens", allowed="2 or more")
    windows = [
        torch.tensor(ids[: len(ids) // width * width], dtype=torch.int64).view(-1, width)
        for ids in ids_of.values()
    ]
    left, chosen = max(1, tokens // width), []  # (how far into its corpus, window)
    for place, of_corpus in enumerate(sorted(windows, key=len)):  # what a small one lacks, the others give
        count = min(len(of_corpus), -(-left // (len(windows) - place)))
        left -= count
        rows = torch.linspace(0, max(0, len(of_corpus) - 1), count).round().long().tolist()
        chosen += [((number + 0.5) / count, of_corpus[row]) for number, row in enumerate(rows)]
    return torch.stack([window for _, window in sorted(chosen, key=lambda pair: pair[0])])
