"""How well a sentence encoder's ONNX file does: against human judgement, and against the dense model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from compress.config.data import Split
from compress.config.evaluate import SentenceSimilarity, retrieval_metrics
from compress.data import HeldOut, PairSet, Splits
from compress.data.retrieval import RetrievalSet
from compress.errors import ConfigError, DataError, did_you_mean
from compress.graph import graph_path
from compress.metrics.correlations import Kind, correlation, paired_correlation_drop
from compress.metrics.quality import Quality, Scored
from compress.metrics.statistics import mean_interval, paired_mean_drop, quantile_interval, spread
from compress.schema.estimates import Estimate, Score
from compress.tasks.sentence_embedding import retrieval
from compress.tasks.sentence_embedding.embedder import embed
from compress.tasks.sentence_embedding.processor import open_processor
from compress.tasks.sentence_embedding.settings import read_settings

Floats = NDArray[np.float64]
Embeddings = dict[str, Floats]  # text -> vector [hidden]
_SCORES = "embeddings.npy"
KINDS: tuple[Kind, ...] = ("spearman", "pearson")


@dataclass(frozen=True)
class Asked:
    """What both models read: sentences, the texts of judged pairs, queries and passages."""

    sentences: tuple[str, ...]
    documents: tuple[int, ...]
    pair_sets: dict[str, PairSet]
    retrieval: RetrievalSet | None

    @property
    def texts(self) -> tuple[str, ...]:
        of_pairs = (text for pair_set in self.pair_sets.values() for text in pair_set.texts)
        of_retrieval = (*self.retrieval.queries, *self.retrieval.passages) if self.retrieval else ()
        return tuple(sorted({*self.sentences, *of_pairs, *of_retrieval}))


def asked(held_out: HeldOut) -> Asked:
    """The sentences, and the pairs of each set; raises DataError for a split without sentences."""
    part, samples, pair_sets = held_out.part, held_out.samples, _pair_sets(held_out.splits, held_out.split)
    if samples is not None:
        pair_sets = {name: _few(pair_set, samples) for name, pair_set in pair_sets.items()}
    rows = spread(len(part.texts), samples)
    if len(rows) < 2:
        raise DataError(f"the {held_out.split.value} split has too few sentences", found=len(rows), allowed=2)
    sentences, documents = (tuple(of[row] for row in rows) for of in (part.texts, part.documents))
    found = held_out.splits.retrieval.get(held_out.split.value)
    return Asked(sentences, documents, pair_sets, retrieval.few(found, samples) if found else None)


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
    human judgement for every pair set of `split`, and how high embeddings of queries rank the passages that
    answer them, where it has some; fidelity is the cosine of both models' embeddings of the sentences of
    `split`. On SELECT, where the pair sets of TEST are out of sight, the primary metric is the same statistic
    of the first pair set of SELECT, or `cosine` where there is none.

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
    if examples.retrieval is not None:
        quality = _with_retrieval(config, quality, scores, examples.retrieval, (before, after), dense)
    for name, pair_set in examples.pair_sets.items():
        scores[f"{name}_human"] = np.asarray(pair_set.scores, dtype=np.float64)
    return quality, scores


def _with_retrieval(
    config: SentenceSimilarity,
    quality: Quality,
    scores: dict[str, Floats],
    found: RetrievalSet,
    embeddings: tuple[Embeddings, Embeddings],
    dense: Scored,
) -> Quality:
    """With the metrics of retrieval, whose values by query join `scores`."""
    alike = read_settings(dense.checkpoint).similarity

    def by_query(vectors: Embeddings) -> dict[str, Floats]:
        queries, passages = (
            np.stack([vectors[text] for text in texts]) for texts in (found.queries, found.passages)
        )
        return retrieval.by_query(queries, passages, found.answers, alike)

    before, after = map(by_query, embeddings)
    scores |= {f"{name}_dense": each for name, each in before.items()}
    scores |= {f"{name}_small": each for name, each in after.items()}
    scored, drops = retrieval.judge(before, after, found.documents, config.resamples, config.seed)
    return replace(
        quality,
        quality={**quality.quality, **scored},
        drop_from_dense={**quality.drop_from_dense, **drops},
    )


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
    known = _metrics(splits, Split.test)
    if wanted not in known:
        raise ConfigError(
            "evaluate.primary names no metric", found=wanted, allowed=did_you_mean(wanted, known)
        )
    here = _metrics(splits, split)
    if wanted in here:
        return wanted
    kind = wanted.rpartition("_")[2]
    return next((name for name in here if name.endswith(f"_{kind}")), "cosine")


def _metrics(splits: Splits, split: Split) -> list[str]:
    judged = [f"{name}_{kind}" for name in _pair_sets(splits, split) for kind in KINDS]
    return ["cosine", "cosine_p5", *judged, *(retrieval_metrics() if split.value in splits.retrieval else ())]


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
