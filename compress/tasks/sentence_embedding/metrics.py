"""How well a sentence encoder's ONNX file does: against human judgement, and against the dense model."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from compress.config.data import Split
from compress.config.evaluate import SentenceSimilarity
from compress.data import HeldOut, PairSet, Splits
from compress.errors import ConfigError, DataError, did_you_mean
from compress.graph import graph_path
from compress.metrics.quality import Quality, Scored
from compress.metrics.statistics import (
    Kind,
    correlation,
    mean_interval,
    paired_correlation_drop,
    paired_mean_drop,
    quantile_interval,
    spread,
)
from compress.schema.report import Estimate, Score
from compress.tasks.sentence_embedding.embedder import embed
from compress.tasks.sentence_embedding.processor import open_processor
from compress.tasks.sentence_embedding.settings import read_settings

Floats = NDArray[np.float64]
Embeddings = dict[str, Floats]  # text -> vector [hidden]
_SCORES = "embeddings.npy"
KINDS: tuple[Kind, ...] = ("spearman", "pearson")


@dataclass(frozen=True)
class Asked:
    """What both models read: sentences, and the texts of judged pairs."""

    sentences: tuple[str, ...]
    documents: tuple[int, ...]
    pair_sets: dict[str, PairSet]

    @property
    def texts(self) -> tuple[str, ...]:
        of_pairs = (text for pair_set in self.pair_sets.values() for text in pair_set.texts)
        return tuple(sorted({*self.sentences, *of_pairs}))


def asked(held_out: HeldOut) -> Asked:
    """The sentences, and the pairs of each set; raises DataError for a split without sentences."""
    part, samples, pair_sets = held_out.part, held_out.samples, _pair_sets(held_out.splits, held_out.split)
    if samples is not None:
        pair_sets = {name: _few(pair_set, samples) for name, pair_set in pair_sets.items()}
    rows = spread(len(part.texts), samples)
    if len(rows) < 2:
        raise DataError(f"the {held_out.split.value} split has too few sentences", found=len(rows), allowed=2)
    sentences, documents = (tuple(of[row] for row in rows) for of in (part.texts, part.documents))
    return Asked(sentences, documents, pair_sets)


def score(config: SentenceSimilarity, model: Scored, dense: Scored, held_out: HeldOut) -> None:
    """Write `embeddings.npy` [texts, hidden], in the order of `Asked.texts`, cut as the dense model's are.

    Raises GateError for a model whose embeddings are broken.
    """
    texts = asked(held_out).texts
    processor = open_processor(dense.checkpoint)
    np.save(model.scores / _SCORES, embed(graph_path(model.graph), processor, texts, there=model.there))


def compare(
    config: SentenceSimilarity, model: Scored, dense: Scored, held_out: HeldOut
) -> tuple[Quality, dict[str, Floats]]:
    """Quality of what `score` wrote of a model beside what it wrote of the dense one, and scores by example.

    Quality is Spearman's and Pearson's correlation of similarities, by what the model is published for, with
    human judgement for every pair set of `split`; fidelity is the cosine of both models' embeddings of the
    sentences of `split`. On SELECT, where the pair sets of TEST are out of sight, the primary metric is the
    same statistic of the first pair set of SELECT, or `cosine` where there is none.

    Raises ConfigError for a primary metric that does not exist.
    """
    primary, examples = _primary(config.primary, held_out.splits, held_out.split), asked(held_out)
    before, after = (_by_text(examples.texts, np.load(of.scores / _SCORES)) for of in (dense, model))
    similarity = _SIMILARITIES[read_settings(dense.checkpoint).similarity]
    scores = {"cosine": _cosine(*(np.stack([of[s] for s in examples.sentences]) for of in (before, after)))}
    for name, pair_set in examples.pair_sets.items():
        scores[f"{name}_dense"] = similarity(*_pairs(pair_set, before))
        scores[f"{name}_small"] = similarity(*_pairs(pair_set, after))
    quality = _judge(config, primary, scores, examples.pair_sets, examples.documents)
    for name, pair_set in examples.pair_sets.items():
        scores[f"{name}_human"] = np.asarray(pair_set.scores, dtype=np.float64)
    return quality, scores


def _judge(
    config: SentenceSimilarity,
    primary: str,
    scores: dict[str, Floats],
    pair_sets: dict[str, PairSet],
    documents: Sequence[int],
) -> Quality:
    quality: dict[str, Score] = {}
    drops: dict[str, Estimate] = {}
    for name, pair_set in pair_sets.items():
        dense, small = scores[f"{name}_dense"], scores[f"{name}_small"]
        for kind in KINDS:
            metric = f"{name}_{kind}"
            quality[metric] = correlation(kind, small, pair_set.scores, pair_set.pairs)
            drops[metric] = paired_correlation_drop(kind, dense, small, pair_set.scores, pair_set.pairs)
    cosine = scores["cosine"]
    draws, seed = config.resamples, config.seed
    # Sentences of one document resemble one another: the documents are the independent units.
    mean = mean_interval(cosine, documents, resamples=draws, seed=seed)
    tail = quantile_interval(cosine, 0.05, documents)
    # The dense model's cosine with itself is 1, so the drop of a fidelity is what it lacks to 1.
    perfect = np.ones_like(cosine)
    drops["cosine"] = paired_mean_drop(perfect, cosine, documents, resamples=draws, seed=seed)
    drops["cosine_p5"] = Estimate(value=1 - tail.value, ci95=(1 - tail.ci95[1], 1 - tail.ci95[0]))
    fidelity = {"cosine": mean, "cosine_p5": tail}
    return Quality(primary=primary, quality=quality, fidelity=fidelity, drop_from_dense=drops)


# --- metrics' names --------------------------------------------------------------------------------------


def _primary(wanted: str, splits: Splits, split: Split) -> str:
    """The metric that decides on `split`. Checked against the metrics of TEST, which is what is reported,
    so that a misspelt name fails at the first look at the select split."""
    known = _metrics(_pair_sets(splits, Split.test))
    if wanted not in known:
        raise ConfigError(
            "evaluate.primary names no metric", found=wanted, allowed=did_you_mean(wanted, known)
        )
    here = _metrics(_pair_sets(splits, split))
    if wanted in here:
        return wanted
    kind = wanted.rpartition("_")[2]
    return next((name for name in here if name.endswith(f"_{kind}")), "cosine")


def _metrics(pair_sets: Iterable[str]) -> list[str]:
    return ["cosine", "cosine_p5", *(f"{name}_{kind}" for name in pair_sets for kind in KINDS)]


def _pair_sets(splits: Splits, split: Split) -> dict[str, PairSet]:
    return {name: pair_set for name, pair_set in splits.pairs.items() if pair_set.split.value == split.value}


def _few(pair_set: PairSet, count: int) -> PairSet:
    rows = spread(len(pair_set.pairs), count)
    used, pairs = np.unique(pair_set.pairs[rows], return_inverse=True)
    return replace(
        pair_set,
        texts=tuple(pair_set.texts[i] for i in used),
        pairs=pairs.reshape(-1, 2),
        scores=pair_set.scores[rows],
    )


# --- similarities ----------------------------------------------------------------------------------------


def _by_text(texts: Sequence[str], embeddings: NDArray[np.float32]) -> Embeddings:
    return dict(zip(texts, embeddings.astype(np.float64), strict=True))


def _pairs(pair_set: PairSet, embeddings: Embeddings) -> tuple[Floats, Floats]:
    """Embeddings [pairs, hidden] of the first and of the second texts."""
    vectors = np.stack([embeddings[text] for text in pair_set.texts])
    return vectors[pair_set.pairs[:, 0]], vectors[pair_set.pairs[:, 1]]


def _cosine(left: Floats, right: Floats) -> Floats:
    left, right = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (left, right))
    # |a - b|^2 = 2 - 2 cos: exactly 1 for equal vectors, which a sum of products is not.
    return np.asarray(1 - ((left - right) ** 2).sum(axis=1) / 2)


_SIMILARITIES: dict[str, Callable[[Floats, Floats], Floats]] = {  # [pairs, hidden] each -> [pairs]
    "cosine": _cosine,
    "dot": lambda left, right: np.asarray((left * right).sum(axis=1)),
    "euclidean": lambda left, right: -np.linalg.norm(left - right, axis=1),
    "manhattan": lambda left, right: -np.abs(left - right).sum(axis=1),
}
