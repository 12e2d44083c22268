"""Whether embeddings find passages."""

import numpy as np
import pytest
from sentence_transformers.util import SimilarityFunction

from compress.config.evaluate import retrieval_metrics
from compress.data.retrieval import RetrievalSet
from compress.metrics import ranking
from compress.tasks.sentence_embedding.retrieval import _similar, by_query, few

ASKED = RetrievalSet(
    queries=tuple(f"w{i} w{i + 1}" for i in range(24)),
    answers=tuple(i // 2 for i in range(24)),
    passages=tuple(f"w{2 * i} w{2 * i + 1} w{2 * i + 2} w{(7 * i) % 50} w50" for i in range(12)),
    documents=tuple(i // 4 for i in range(24)),
    fingerprint="x",
)


def test_each_query_is_ranked_against_all_passages():
    queries, passages = np.random.default_rng(0).normal(size=(2, 9, 4))
    answers = [0, 0, 1, 2, 3, 5, 6, 7, 8]
    found = by_query(queries, passages, answers, "dot")
    assert tuple(found) == retrieval_metrics()
    for row, answer in enumerate(answers):
        scores, gains = passages @ queries[row], np.arange(9) == answer
        assert found["retrieval_ndcg10"][row] == pytest.approx(ranking.ndcg(scores, gains))
        rank = 1 + (scores > scores[answer]).sum()
        assert found["retrieval_mrr10"][row] == pytest.approx(1 / rank)
        assert found["retrieval_recall10"][row] == 1  # of nine


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
def test_texts_are_compared_as_sentence_transformers_compares_them(name):
    left, right = np.random.default_rng(0).normal(size=(2, 9, 8))
    expected = SimilarityFunction.to_similarity_fn(name)(left, right)
    np.testing.assert_allclose(_similar(left, right, name), expected, atol=1e-12)


def test_few_queries_keep_the_passages_that_answer_them():
    less = few(ASKED, 5)
    assert len(less.queries) == 5
    for query, answer in zip(less.queries, less.answers, strict=True):
        place = ASKED.queries.index(query)
        assert less.passages[answer] == ASKED.passages[ASKED.answers[place]]
    assert few(ASKED, None) == ASKED
