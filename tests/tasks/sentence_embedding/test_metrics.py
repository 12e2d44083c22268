import dataclasses

import numpy as np
import pytest
from scipy import stats

from compress import evaluate as stages
from compress.config.data import PairSplit, Split
from compress.config.evaluate import SentenceSimilarity
from compress.data import PairSet, Splits, TextSplit
from compress.data.retrieval import RetrievalSet
from compress.errors import ConfigError, GateError, StoreError
from compress.metrics.quality import load_quality
from compress.schema.estimates import Estimate
from compress.tasks.sentence_embedding import metrics
from tests.evaluate.stages import evaluate

ZERO = Estimate(value=0.0, ci95=(0.0, 0.0))


def _sentences(rng, n):
    return tuple(" ".join(f"w{i}" for i in rng.integers(0, 60, size=6)) for _ in range(n))


@pytest.fixture(scope="module")
def splits():
    rng = np.random.default_rng(1)

    def text_split(name, n):
        documents = tuple(i // 3 for i in range(n))
        return TextSplit(name=name, texts=_sentences(rng, n), documents=documents, fingerprint=name)

    def pair_set(name, split, n):
        pairs = np.stack(np.triu_indices(n, 1), axis=1)
        return PairSet(
            name=name,
            split=split,
            texts=_sentences(rng, n),
            pairs=pairs,
            scores=rng.normal(size=len(pairs)),
            fingerprint=name,
        )

    return Splits(
        **{name: text_split(name, 30) for name in ("calibration", "train", "select", "test")},
        pairs={
            "lee": pair_set("lee", PairSplit.test, 12),
            "words": pair_set("words", PairSplit.test, 10),
            "simlex": pair_set("simlex", PairSplit.select, 10),
        },
    )


@pytest.fixture
def run(monkeypatch, splits, checkpoint, encoder, table, tmp_path):
    """Evaluates an encoder whose token embeddings differ from the dense one's by noise."""
    monkeypatch.setattr(stages, "load_splits", lambda folder: splits)
    dense = encoder("baseline/model", table).parent

    def go(noise=0.0, split=Split.test, small=None, **options):
        if small is None:
            small = table + noise * np.random.default_rng(2).normal(size=table.shape)
        config = SentenceSimilarity(**{"resamples": 200, **options})
        out = tmp_path / "result"
        graph = encoder("graph/model", small).parent
        evaluate(config, graph, dense, checkpoint, checkpoint, tmp_path, out, split)
        return load_quality(out), np.load(out / "scores.npz")

    return go


def test_the_dense_file_itself_drops_by_exactly_zero(run):
    quality, scores = run(noise=0.0)
    assert set(quality.drop_from_dense.values()) == {ZERO}
    assert quality.fidelity["cosine"].value == 1.0
    np.testing.assert_array_equal(scores["lee_dense"], scores["lee_small"])


def test_numbers_follow_from_the_scores_of_the_examples(run, splits):
    quality, scores = run(noise=0.3)
    human = splits.pairs["lee"].scores
    np.testing.assert_array_equal(scores["lee_human"], human)
    dense, small = (stats.spearmanr(scores[f"lee_{which}"], human).statistic for which in ("dense", "small"))
    assert quality.quality["lee_spearman"].value == pytest.approx(small)
    assert quality.quality["lee_spearman"].n == 66
    assert quality.drop_from_dense["lee_spearman"].value == pytest.approx(dense - small)
    pearson = stats.pearsonr(scores["words_small"], splits.pairs["words"].scores).statistic
    assert quality.quality["words_pearson"].value == pytest.approx(pearson)
    assert quality.fidelity["cosine"].value == pytest.approx(scores["cosine"].mean())
    assert quality.fidelity["cosine_p5"].value == pytest.approx(np.quantile(scores["cosine"], 0.05))
    assert quality.drop_from_dense["cosine"].value == pytest.approx(1 - scores["cosine"].mean())
    assert quality.primary == "lee_spearman"


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
def test_pairs_are_compared_as_sentence_transformers_compares_them(name):
    from sentence_transformers.util import SimilarityFunction

    left, right = np.random.default_rng(0).normal(size=(2, 9, 8))
    expected = SimilarityFunction.to_similarity_pairwise_fn(name)(left, right)
    np.testing.assert_allclose(metrics._SIMILARITIES[name](left, right), expected, atol=1e-12)


def test_the_model_says_how_its_texts_are_compared(run, splits, table, checkpoint):
    path = checkpoint / "config_sentence_transformers.json"
    path.write_text('{"similarity_fn_name": "euclidean"}')
    try:
        _, scores = run(noise=0.3)
    finally:
        path.unlink()
    assert (scores["lee_dense"] < 0).all()
    assert scores["lee_small"].min() < -0.1
    assert (scores["cosine"] > 0).all()


def test_scores_are_cosines(run, splits, table):
    _, scores = run(noise=0.3)

    def unit(text):
        total = table.astype(np.float32)[[2, *(int(word[1:]) + 5 for word in text.split()), 3]].sum(axis=0)
        return total / np.linalg.norm(total)

    lee = splits.pairs["lee"]
    vectors = np.stack([unit(text) for text in lee.texts])
    expected = [vectors[i] @ vectors[j] for i, j in lee.pairs]
    np.testing.assert_allclose(scores["lee_dense"], expected, atol=1e-5)


def test_test_and_select_see_their_own_data_only(run):
    test, _ = run(noise=0.3)
    select, scores = run(noise=0.3, split=Split.select)
    assert set(test.quality) == {"lee_spearman", "lee_pearson", "words_spearman", "words_pearson"}
    assert set(select.quality) == {"simlex_spearman", "simlex_pearson"}
    assert select.primary == "simlex_spearman"
    assert select.fidelity["cosine"] != test.fidelity["cosine"]
    assert not any(name.startswith(("lee", "words")) for name in scores)


@pytest.mark.parametrize("primary", ["words_spearman", "words_pearson", "cosine", "cosine_p5"])
def test_the_primary_metric_is_the_one_asked_for(run, primary):
    quality, _ = run(noise=0.3, primary=primary)
    assert quality.primary == primary
    assert primary in quality.drop_from_dense


@pytest.mark.parametrize("split", [Split.select, Split.test])
def test_an_unknown_primary_metric(run, split):
    with pytest.raises(ConfigError, match="did you mean 'lee_spearman'"):
        run(primary="lee_speerman", split=split)


def test_results_are_deterministic(run):
    assert run(noise=0.3)[0] == run(noise=0.3)[0]


def test_more_noise_is_less_faithful(run):
    near, far = run(noise=0.05)[0], run(noise=0.8)[0]
    assert near.fidelity["cosine"].value > far.fidelity["cosine"].value
    assert near.drop_from_dense["cosine"].ci95[1] < far.drop_from_dense["cosine"].ci95[0]


def test_a_constant_model_stops_at_the_gate(run, table):
    with pytest.raises(GateError):
        run(small=np.ones_like(table))


def test_a_result_that_is_not_there(tmp_path):
    with pytest.raises(StoreError):
        load_quality(tmp_path)


def test_few_pairs_are_spread_and_keep_their_texts_and_scores():
    from compress.data import PairSet
    from compress.tasks.sentence_embedding.metrics import _few

    whole = PairSet(
        name="p",
        split=PairSplit.select,
        texts=tuple("abcdef"),
        pairs=np.array([[0, 1], [1, 2], [2, 5], [3, 4], [5, 0], [4, 1]]),
        scores=np.arange(6.0),
        fingerprint="",
    )
    few = _few(whole, 3)  # rows 0, 2 and 4
    assert [(few.texts[i], few.texts[j]) for i, j in few.pairs] == [("a", "b"), ("c", "f"), ("f", "a")]
    assert few.scores.tolist() == [0, 2, 4]
    assert few.texts == ("a", "b", "c", "f")  # what no pair needs is not embedded
    assert _few(whole, 99).pairs.tolist() == whole.pairs.tolist()


def test_an_evaluation_reports_how_passages_are_found(
    monkeypatch, splits, checkpoint, encoder, table, tmp_path
):
    asked = RetrievalSet(
        queries=tuple(f"w{i} w{i + 1}" for i in range(24)),
        answers=tuple(i // 2 for i in range(24)),
        passages=tuple(f"w{2 * i} w{2 * i + 1} w{2 * i + 2} w{(7 * i) % 50} w50" for i in range(12)),
        documents=tuple(i // 4 for i in range(24)),
        fingerprint="x",
    )
    both = dataclasses.replace(splits, retrieval={"test": asked})
    monkeypatch.setattr(stages, "load_splits", lambda folder: both)
    dense = encoder("baseline/model", table).parent

    def go(small, split=Split.test):
        config = SentenceSimilarity(resamples=200, primary="retrieval_ndcg10")
        graph = encoder("graph/model", small).parent
        out = tmp_path / "result"
        evaluate(config, graph, dense, checkpoint, checkpoint, tmp_path, out, split)
        return load_quality(out), np.load(out / "scores.npz")

    quality, _ = go(table)
    assert quality.primary == "retrieval_ndcg10"
    assert quality.drop_from_dense["retrieval_ndcg10"].ci95 == (0, 0)
    assert quality.quality["retrieval_ndcg10"].n == 24
    worse, scores = go(table[np.arange(len(table)) // 8 * 8])  # eight words each are one to it
    drop = scores["retrieval_ndcg10_dense"].mean() - scores["retrieval_ndcg10_small"].mean()
    assert worse.drop_from_dense["retrieval_ndcg10"].value == pytest.approx(drop)
    assert drop > 0.01
    assert go(table, Split.select)[0].primary == "cosine"
