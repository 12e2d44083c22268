"""How well a reranker does: against the passages that answer a query, and against the dense model."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from compress.data import HeldOut
from compress.data.record import Record
from compress.graph import graph_path
from compress.graph.gates import check_answers
from compress.metrics.quality import Quality, Scored
from compress.metrics.ranking import ndcg, recall, reciprocal_rank
from compress.schema.details import ChangedText, TextDetails
from compress.tasks.reranking.options import Reranking
from compress.tasks.reranking.processor import open_processor
from compress.tasks.text.answers import answers
from compress.tasks.text.comparison import Comparison, Example, brief, details, examples_of, groups_of

Floats = NDArray[np.float64]
_SCORES = "logits.npy"


def score(config: Reranking, model: Scored, dense: Scored, held_out: HeldOut) -> None:
    """Write `logits.npy` [pairs] of the passages of every query of a split, query by query. Those of a
    query are read together, `config.batch` at a time, as they are when the model is used.

    Raises ModelError for another kind of graph and GateError for a model whose logits are broken.
    """
    path, processor = graph_path(model.graph), open_processor(dense.checkpoint)
    batches = []
    for rows in processor.queries(examples_of(held_out)):
        batches += [rows[at : at + config.batch] for at in range(0, len(rows), config.batch)]
    found = answers(path, processor, batches, ["logits"], there=model.there)
    logits = np.concatenate([each["logits"][:, 0] for each in found])
    check_answers(logits, path.name, "logits", "pair")
    np.save(model.scores / _SCORES, logits)


def compare(
    config: Reranking, model: Scored, dense: Scored, held_out: HeldOut
) -> tuple[Quality, dict[str, Any]]:
    """Quality of what `score` wrote of a model beside what it wrote of the dense one, and scores by pair: the
    number of its query, logits of both.

    Fidelity is Spearman's correlation of both models' scores of a query's passages, and the difference of the
    scores beside the spread of the dense ones.
    """
    examples = examples_of(held_out)
    before, after = (np.load(of.scores / _SCORES).astype(np.float64) for of in (dense, model))
    counts = [max(1, len(each.candidates)) if isinstance(each, Record) else 1 for each in examples]
    found, groups = Comparison(config, np.array_equal(before, after)), groups_of(examples)
    several = np.flatnonzero(np.array(counts) > 1)
    if len(several) > 1:
        queries = zip(_cut(before, counts), _cut(after, counts), strict=True)
        alike = np.array([_rank_correlation(*of_both) for of_both in queries])
        found.nearness("rank_correlation", alike[several], groups[several], 1.0)
    spread = max(float(before.std()), 1e-30)
    differences = [float(np.abs(each).mean()) / spread for each in _cut(before - after, counts)]
    found.nearness("score_difference", differences, groups, 0.0)
    by_example = {"queries": np.repeat(np.arange(len(counts)), counts), "dense": before, "small": after}
    text = None
    judged = [row for row, each in enumerate(examples) if isinstance(each, Record) and any(each.relevance)]
    if len(judged) > 1:
        scores = [list(_cut(each, counts)) for each in (before, after)]
        text = _against_labels(found, examples, judged, scores, groups[judged])
    return found.result(
        config.primary, "ndcg@10", "rank_correlation", "score_difference", text=text
    ), by_example


def _against_labels(
    found: Comparison,
    examples: Sequence[Example],
    judged: Sequence[int],
    scores: Sequence[Sequence[Floats]],
    groups: NDArray[np.int64],
) -> TextDetails:
    """Of the queries `judged`, which a passage answers."""
    queries = [cast(Record, examples[row]) for row in judged]
    ranked = [[of[row] for row in judged] for of in scores]
    both: list[Floats] = []
    for name, metric in {"ndcg@10": ndcg, "mrr@10": reciprocal_rank, "recall@10": recall}.items():
        values = [
            np.array([metric(each, query.relevance) for each, query in zip(of, queries, strict=True)])
            for of in ranked
        ]
        found.mean(name, values, groups)
        both = both or values

    def change(row: int) -> ChangedText:
        query = queries[row]
        first = [query.candidates[int(of[row].argmax())] for of in ranked]
        best = query.candidates[int(np.argmax(query.relevance))]
        told = [brief(each, 100) for each in (best, *first)]
        return ChangedText(
            example=judged[row], text=brief(query.text), expected=told[0], dense=told[1], variant=told[2]
        )

    return details(both, change)


def _cut(values: Floats, counts: Sequence[int]) -> Iterator[Floats]:
    """Those of each query."""
    return iter(np.split(values, np.cumsum(counts)[:-1]))


def _rank_correlation(dense: Floats, small: Floats) -> float:
    """1 where all passages are worth the same to both."""
    if np.ptp(dense) == 0 or np.ptp(small) == 0:
        return float(np.ptp(dense) == np.ptp(small))
    return float(spearmanr(dense, small).statistic)
