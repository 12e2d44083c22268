"""How well a sentence encoder's ONNX file does: against human judgement, and against the dense model."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from compress.config.data import Split
from compress.config.evaluate import SentenceSimilarity
from compress.data import PairSet, Splits, load_texts
from compress.errors import ConfigError, DataError, did_you_mean
from compress.evaluate.embedder import embed
from compress.evaluate.quality import Dense, Quality, save_quality
from compress.evaluate.statistics import (
    Kind,
    correlation,
    mean_interval,
    paired_correlation_drop,
    paired_mean_drop,
    quantile_interval,
)
from compress.schema.report import Estimate, Score
from compress.tasks.sentence_embedding.processor import open_processor

T = TypeVar("T")
Floats = NDArray[np.float64]
Embeddings = dict[str, Floats]  # text -> unit vector [hidden]
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


def asked(splits: Splits, split: Split, samples: int | None) -> Asked:
    """`samples` limits the sentences and the pairs of each set, evenly spread over what there is.

    Raises DataError for a split without sentences.
    """
    held_out = splits.test if split is Split.test else splits.select
    sentences, documents, pair_sets = held_out.texts, held_out.documents, _pair_sets(splits, split)
    if samples is not None:
        sentences, documents = _spread(sentences, samples), _spread(documents, samples)
        pair_sets = {name: _few(pair_set, samples) for name, pair_set in pair_sets.items()}
    if len(sentences) < 2:
        raise DataError(f"the {split.value} split has too few sentences", found=len(sentences), allowed=2)
    return Asked(tuple(sentences), tuple(documents), pair_sets)


def evaluate(
    config: SentenceSimilarity,
    dense: Dense,
    graph: Path,
    student: Path,
    splits_folder: Path,
    out: Path,
    split: Split,
    samples: int | None,
) -> None:
    """Score one model, unless it is the dense one, and `compare` it; both read by the dense checkpoint."""
    scores = dense.scores
    if not dense.is_in(graph):
        score(config, graph, dense.checkpoint, splits_folder, out, split, samples)
        scores = out
    compare(config, dense.scores, scores, splits_folder, out, split, samples)


def score(
    config: SentenceSimilarity,
    graph: Path,
    checkpoint: Path,
    splits_folder: Path,
    out: Path,
    split: Split,
    samples: int | None,
) -> None:
    """Write `embeddings.npy` [texts, hidden] of one model to `out`, in the order of `Asked.texts`.

    Raises GateError for a model whose embeddings are broken.
    """
    texts = asked(load_texts(splits_folder), split, samples).texts
    np.save(out / _SCORES, embed(graph / "model.onnx", open_processor(checkpoint), texts))


def compare(
    config: SentenceSimilarity,
    dense_scores: Path,
    scores: Path,
    splits_folder: Path,
    out: Path,
    split: Split,
    samples: int | None,
) -> None:
    """Compare two folders that `score` wrote, of the dense model and of another.

    Writes `quality.json` (see `load_quality`) and `scores.npz` (per-example scores) to the folder `out`.
    Quality is Spearman's and Pearson's correlation of cosines with human judgement for every pair set of
    `split`; fidelity is the cosine of both models' embeddings of the sentences of `split`. On SELECT,
    where the pair sets of TEST are out of sight, the primary metric is the same statistic of the first
    pair set of SELECT, or `cosine` where there is none.

    Raises ConfigError for a primary metric that does not exist.
    """
    splits = load_texts(splits_folder)
    primary, examples = _primary(config.primary, splits, split), asked(splits, split, samples)
    dense, small = (_unit(examples.texts, np.load(path / _SCORES)) for path in (dense_scores, scores))
    cosine = _cosine([dense[s] for s in examples.sentences], [small[s] for s in examples.sentences])
    found = {"cosine": cosine}
    for name, pair_set in examples.pair_sets.items():
        found[f"{name}_dense"] = _pair_cosines(pair_set, dense)
        found[f"{name}_small"] = _pair_cosines(pair_set, small)
    result = _judge(config, primary, found, examples.pair_sets, examples.documents)
    for name, pair_set in examples.pair_sets.items():
        found[f"{name}_human"] = np.asarray(pair_set.scores, dtype=np.float64)
    np.savez(out / "scores.npz", allow_pickle=False, **found)
    save_quality(result, out)


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


def _spread(items: Sequence[T], count: int) -> tuple[T, ...]:
    """At most `count` of the items, evenly spread: a file may be sorted by kind of word."""
    count = min(count, len(items))
    return tuple(items[i * len(items) // count] for i in range(count))


def _few(pair_set: PairSet, count: int) -> PairSet:
    rows = np.asarray(_spread(range(len(pair_set.pairs)), count))
    used, pairs = np.unique(pair_set.pairs[rows], return_inverse=True)
    return replace(
        pair_set,
        texts=tuple(pair_set.texts[i] for i in used),
        pairs=pairs.reshape(-1, 2),
        scores=pair_set.scores[rows],
    )


# --- cosines ---------------------------------------------------------------------------------------------


def _unit(texts: Sequence[str], embeddings: NDArray[np.float32]) -> Embeddings:
    vectors = embeddings.astype(np.float64)
    return dict(zip(texts, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), strict=True))


def _cosine(left: list[Floats], right: list[Floats]) -> Floats:
    # |a - b|^2 = 2 - 2 cos: exactly 1 for equal vectors, which a sum of products is not.
    return np.asarray(1 - ((np.stack(left) - np.stack(right)) ** 2).sum(axis=1) / 2)


def _pair_cosines(pair_set: PairSet, embeddings: Embeddings) -> Floats:
    vectors = [embeddings[text] for text in pair_set.texts]
    return _cosine([vectors[i] for i in pair_set.pairs[:, 0]], [vectors[j] for j in pair_set.pairs[:, 1]])
