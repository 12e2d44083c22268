"""Language models judged: against numpy, torch and stock transformers; what is wrong is said."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
import transformers

from compress.config.data import Documents, Split, TextFile
from compress.config.evaluate import LanguageModeling
from compress.data import load_splits, open_splits
from compress.errors import ConfigError, DataError, GateError, ModelError
from compress.metrics.quality import load_quality
from compress.metrics.statistics import mean_interval, paired_ratio_drop, ratio_interval
from compress.models.tokenizer import Tokenizer
from compress.prune.tokens import cut_vocabulary
from compress.tasks.language_modeling.generation import repeated, shared_prefix
from compress.tasks.language_modeling.likelihoods import divergences, likelihoods
from compress.tasks.language_modeling.model import CausalLM
from compress.tasks.language_modeling.windows import Row, Window, read_row
from tests.evaluate.stages import evaluate

CONFIG = LanguageModeling(context=48, stride=48, prompts=3, prompt_tokens=8, new_tokens=10, resamples=200)


@pytest.fixture(scope="module")
def texts(language_texts):
    """Without some words, so that there are tokens that no text needs."""
    return [
        re.sub("quiet|mountain|music|winter", "old", text, flags=re.IGNORECASE) for text in language_texts
    ]


@pytest.fixture(scope="module")
def splits(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("documents")
    (folder / "news.txt").write_text("\n".join(texts[:70]))
    (folder / "wiki.txt").write_text("\n".join(texts[70:]))
    config = Documents(
        corpora={name: TextFile(source=f"path:{folder}/{name}.txt") for name in ("news", "wiki")},
        test={"news": 9, "wiki": 5},
        select={"wiki": 6},
        calibration={"news": 10},
        train=["wiki"],
        min_words=5,
    )
    open_splits(config, folder / "splits")
    return folder / "splits"


@pytest.fixture(scope="module")
def checkpoint(language_checkpoints):
    return language_checkpoints["llama"]


@pytest.fixture(scope="module")
def tokenizer(checkpoint):
    return transformers.AutoTokenizer.from_pretrained(checkpoint)


@pytest.fixture(scope="module")
def models(tiny_lm, tokenizer):
    """A dense model of as many tokens as the tokenizer has, and one with other projections."""
    random = np.random.default_rng(1)
    dense = dataclasses.replace(
        tiny_lm, embedding=random.standard_normal((len(tokenizer), 16)).astype(np.float32) / 2
    )
    small = dataclasses.replace(dense, projections=tuple(each * 0.8 for each in dense.projections))
    return dense, small


@pytest.fixture
def graphs(models, tmp_path):
    folders = []
    for name, model in zip(("dense", "small"), models, strict=True):
        (tmp_path / name).mkdir()
        model.write(tmp_path / name / "model.onnx")
        folders.append(tmp_path / name)
    return folders


def by_hand(model, tokenizer, texts, context):
    """Nats and log probabilities of each scored token, its document and its bytes, a window at a time."""
    ids, owners = [], []
    for i, text in enumerate(texts):
        ids += (own := tokenizer(text + "\n")["input_ids"])
        owners += [i] * len(own)
    sizes = [len(tokenizer.convert_ids_to_tokens(i)) for i in ids]  # a letter of a byte-level token is a byte
    nll, rows, documents, counted = [], [], [], []
    for start in range(0, len(ids), context):
        window = np.array(ids[start : start + context])
        logits = torch.from_numpy(model.logits(window))
        probabilities = torch.log_softmax(logits, 1).numpy()
        for j in range(1, len(window)):
            nll.append(-probabilities[j - 1, window[j]])
            rows.append(probabilities[j - 1])
            documents.append(owners[start + j])
            counted.append(sizes[start + j])
    return np.array(nll), np.array(rows), np.array(documents), np.array(counted)


def test_every_number_is_what_numpy_gives(graphs, models, checkpoint, tokenizer, splits, tmp_path):
    dense, small = graphs
    evaluate(CONFIG, small, dense, checkpoint, checkpoint, splits, tmp_path)
    found = load_quality(tmp_path)
    test = load_splits(splits).test
    kl, agree = [], []
    for name in ("news", "wiki"):
        texts = [text for text, domain in zip(test.texts, test.domains, strict=True) if domain == name]
        before, expected, documents, sizes = by_hand(models[0], tokenizer, texts, 48)
        after, got, _, _ = by_hand(models[1], tokenizer, texts, 48)
        score, drop = found.quality[f"bits_per_byte_{name}"], found.drop_from_dense[f"bits_per_byte_{name}"]
        assert score.value == pytest.approx(after.sum() / np.log(2) / sizes.sum(), rel=1e-5)
        assert drop.value == pytest.approx((after - before).sum() / np.log(2) / sizes.sum(), abs=1e-5)
        assert score.n == len(after)
        assert score.ci95[0] < score.value < score.ci95[1]
        assert not score.higher_is_better
        score, drop = found.quality[f"perplexity_{name}"], found.drop_from_dense[f"perplexity_{name}"]
        assert score.value == pytest.approx(np.exp(after.mean()), rel=1e-5)
        assert drop.value == pytest.approx(np.exp(after.mean()) - np.exp(before.mean()), rel=1e-4)
        interval = mean_interval(after, documents, resamples=200).ci95
        assert score.ci95 == pytest.approx(np.exp(interval), rel=1e-4)  # clustered by document
        assert interval != mean_interval(after, resamples=200).ci95
        kl += (np.exp(expected) * (expected - got)).sum(1).tolist()
        agree += (expected.argmax(1) == got.argmax(1)).tolist()
    assert found.primary == "bits_per_byte_news"
    assert found.fidelity["kl"].value == pytest.approx(np.mean(kl), rel=1e-4)
    assert found.fidelity["top1_agreement"].value == pytest.approx(np.mean(agree), abs=1e-9)
    assert found.drop_from_dense["top1_agreement"].value == pytest.approx(1 - np.mean(agree), abs=1e-9)
    details = found.language
    assert [(each.name, each.documents) for each in details.domains] == [("news", 9), ("wiki", 5)]
    assert details.compared_share == 1.0
    assert [each.domain for each in details.continuations] == ["news", "wiki", "news"]


def test_the_dense_model_beside_itself(graphs, checkpoint, splits, tmp_path):
    dense, _ = graphs
    evaluate(CONFIG, dense, dense, checkpoint, checkpoint, splits, tmp_path)
    found = load_quality(tmp_path)
    assert found.fidelity["kl"].value == 0
    assert found.fidelity["top1_agreement"].ci95 == (1.0, 1.0)
    assert {drop.value for drop in found.drop_from_dense.values()} == {0.0}
    for each in found.language.continuations:
        assert each.dense == each.variant
        assert each.shared_tokens == each.tokens


def test_continuations_are_the_likeliest(graphs, models, checkpoint, tokenizer, splits, tmp_path):
    dense, small = graphs
    evaluate(CONFIG, small, dense, checkpoint, checkpoint, splits, tmp_path)
    first = load_quality(tmp_path).language.continuations[0]
    assert load_splits(splits).test.texts[0].startswith(first.prompt)
    prompt = tokenizer(first.prompt)["input_ids"]
    assert len(prompt) == 8
    written = []
    for model in models:
        ids = list(prompt)
        for _ in range(10):
            token = int(model.logits(np.array(ids))[-1].argmax())
            if token == 0:  # the end of a text
                break
            ids.append(token)
        written.append(ids[8:])
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in written]
    assert [first.dense, first.variant] == texts
    assert first.shared_tokens == shared_prefix(*written)


def test_nll_is_stock_transformers_loss(checkpoint, language_graphs, splits, tmp_path):
    """Of a whole two-layer Llama whose head is its embedding, exported as the baseline is."""
    graph, config = language_graphs("llama", False), dataclasses.replace(CONFIG, prompts=0)
    evaluate(config, graph, graph, checkpoint, checkpoint, splits, tmp_path)
    stock = transformers.AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    test = load_splits(splits).test
    texts = [text for text, domain in zip(test.texts, test.domains, strict=True) if domain == "wiki"]
    ids = torch.from_numpy(read_row(Tokenizer(checkpoint), texts).ids)
    losses, count = 0.0, 0
    for window in ids.split(48):
        if len(window) > 1:
            losses += float(stock(window[None], labels=window[None]).loss.detach()) * (len(window) - 1)
            count += len(window) - 1
    score = load_quality(tmp_path).quality["perplexity_wiki"]
    assert score.n == count
    assert score.value == pytest.approx(np.exp(losses / count), rel=1e-4)


# ---------------------------------------------------------------- fewer tokens


@pytest.fixture
def fewer(checkpoint, models, graphs, tmp_path):
    """The dense model with only the tokens that some text needs: folder of its graph, and checkpoint."""

    def make(texts, target):
        model = CausalLM.open(checkpoint)
        folder = tmp_path / "fewer"
        folder.mkdir()
        kept = cut_vocabulary(model, texts, target, folder / "tokenizer")
        model.save(folder, dataclasses.replace(model.facts, kept_tokens=kept))
        dataclasses.replace(models[0], embedding=models[0].embedding[list(kept)]).write(folder / "model.onnx")
        return folder, kept

    return make


def test_all_tokens_of_the_text_kept(fewer, graphs, checkpoint, splits, texts, tmp_path):
    """Its answers are the dense model's among the tokens kept; only what it need not consider is gone."""
    folder, kept = fewer(texts, 312)
    assert len(kept) <= 312
    evaluate(CONFIG, folder, graphs[0], folder, checkpoint, splits, tmp_path)
    found = load_quality(tmp_path)
    assert found.fidelity["kl"].value == pytest.approx(0, abs=1e-9)
    assert found.fidelity["top1_agreement"].value == 1.0
    assert found.language.compared_share == 1.0
    assert "perplexity_news" not in found.quality
    assert found.drop_from_dense["bits_per_byte_news"].value < 0  # fewer tokens share the probability
    with pytest.raises(ConfigError, match=r"different tokens\n(.|\n)*bits_per_byte_news"):
        evaluate(
            dataclasses.replace(CONFIG, primary="perplexity_news"),
            *(folder, graphs[0], folder, checkpoint, splits, tmp_path),
        )


def test_bytes_are_the_same_under_both_tokenizers(fewer, graphs, checkpoint, splits, tmp_path):
    """Words cut to smaller tokens: more of them, of as many bytes; compared where both have a boundary."""
    folder, _ = fewer(["the old"], 270)
    evaluate(CONFIG, folder, graphs[0], folder, checkpoint, splits, tmp_path)
    found = load_quality(tmp_path)
    scores = np.load(tmp_path / "scores.npz")
    assert len(scores["news_small_nll"]) > 1.5 * len(scores["news_dense_nll"])
    total = scores["news_dense_bytes"].sum()
    assert abs(scores["news_small_bytes"].sum() - total) < 0.05 * total
    assert 0.8 < found.language.compared_share <= 1
    assert found.language.domains[0].bytes == sum(
        len(text.encode()) + 1 for text in load_splits(splits).test.texts[:9]
    )


# ---------------------------------------------------------------- select


def test_select_has_its_own_documents(graphs, checkpoint, splits, tmp_path):
    dense, small = graphs
    evaluate(CONFIG, small, dense, checkpoint, checkpoint, splits, tmp_path, Split.select, 4)
    found = load_quality(tmp_path)
    assert found.primary == "bits_per_byte_wiki"  # news is not in select
    assert set(found.quality) == {"bits_per_byte_wiki", "perplexity_wiki"}
    assert found.language.domains[0].documents == 4
    assert found.language.continuations == ()


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"tokens": 60}, DataError, "too little text of the domain 'news'"),
        ({"context": 300, "stride": 300}, ModelError, "evaluate.context=256 evaluate.stride=256"),
        ({"primary": "bits_per_byte_nws"}, ConfigError, "did you mean 'bits_per_byte_news'"),
        ({"prompt_tokens": 250}, ModelError, "prompt and continuation"),
    ],
)
def test_what_cannot_be_measured(changes, kind, message, graphs, checkpoint, splits, tmp_path):
    config = dataclasses.replace(CONFIG, **changes)
    with pytest.raises(kind, match=message):
        evaluate(config, *graphs[::-1], checkpoint, checkpoint, splits, tmp_path)


@pytest.mark.parametrize(("factor", "message"), [(np.nan, "not finite"), (0.0, "the same logits")])
def test_a_broken_model_fails(factor, message, models, graphs, checkpoint, splits, tmp_path):
    broken = dataclasses.replace(models[0], embedding=models[0].embedding * np.float32(factor))
    broken.write(graphs[1] / "model.onnx")
    with pytest.raises(GateError, match=message):
        evaluate(CONFIG, graphs[1], graphs[0], checkpoint, checkpoint, splits, tmp_path)


def test_another_vocabulary_without_a_word_about_it_fails(models, graphs, checkpoint, splits, tmp_path):
    dataclasses.replace(models[0], embedding=models[0].embedding[:-1]).write(graphs[1] / "model.onnx")
    with pytest.raises((ModelError, Exception), match=r"another vocabulary|indices"):
        evaluate(CONFIG, graphs[1], graphs[0], checkpoint, checkpoint, splits, tmp_path)


# ---------------------------------------------------------------- arithmetic


def test_likelihoods_and_divergence_are_torchs():
    random = np.random.default_rng(0)
    dense, small = random.standard_normal((2, 90, 11)).astype(np.float32) * 3
    row = Row(random.integers(0, 11, 100), np.arange(1, 101) * 2, np.repeat([0, 1], 50))
    window = Window(5, 95, 20)
    found = likelihoods(dense, row, window)
    expected = torch.nn.functional.cross_entropy(
        torch.from_numpy(dense[14:89]), torch.from_numpy(row.ids[20:95]), reduction="none"
    )
    np.testing.assert_allclose(found.nll, expected.numpy(), rtol=1e-5)
    assert found.bytes.tolist() == [2] * 75
    assert found.documents.tolist() == [0] * 30 + [1] * 45
    kl, agree = divergences(dense, small, None)
    a, b = (torch.log_softmax(torch.from_numpy(each).double(), 1) for each in (dense, small))
    expected = torch.nn.functional.kl_div(b, a, log_target=True, reduction="none").sum(1)
    np.testing.assert_allclose(kl, expected.numpy(), rtol=1e-6)
    assert agree.tolist() == (dense.argmax(1) == small.argmax(1)).tolist()


def test_divergence_among_kept_tokens_by_hand():
    dense = np.log(np.array([[0.5, 0.25, 0.25]], np.float32))
    small = np.log(np.array([[0.5, 0.5]], np.float32))
    kl, agree = divergences(dense, small, np.array([0, 2]))
    assert kl[0] == pytest.approx(2 / 3 * np.log(4 / 3) + 1 / 3 * np.log(2 / 3), abs=1e-6)
    assert agree.tolist() == [True]


def test_ratios_are_those_of_totals():
    random = np.random.default_rng(0)
    sizes = random.integers(5, 50, 30)
    values = [random.standard_normal(size) + 3 for size in sizes]
    sums = np.array([each.sum() for each in values])
    flat = mean_interval(np.concatenate(values), np.repeat(np.arange(30), sizes))
    found = ratio_interval(sums, sizes, n=int(sizes.sum()))
    assert found.value == pytest.approx(flat.value)
    assert found.ci95 == pytest.approx(flat.ci95)
    drop = paired_ratio_drop((sums, sizes), (sums * 1.1, sizes * 1.05), higher_is_better=False)
    assert drop.value == pytest.approx(found.value * (1.1 / 1.05 - 1))
    with pytest.raises(DataError, match="none of them empty"):
        ratio_interval([1.0, 2.0], [1, 0], n=2)


def test_prefixes_and_repetition_by_hand():
    assert shared_prefix([1, 2, 3], [1, 2, 4]) == 2
    assert shared_prefix([1, 2], [1, 2, 4]) == 2
    assert repeated([1, 2, 3]) == 0
    assert repeated([1] * 7) == 0.75  # 4 runs, one kind
    assert repeated([1, 2, 3, 4, 1, 2, 3, 4]) == pytest.approx(0.2)


def test_scores_can_be_read_without_pickle(graphs, checkpoint, splits, tmp_path):
    evaluate(dataclasses.replace(CONFIG, prompts=0), *graphs[::-1], checkpoint, checkpoint, splits, tmp_path)
    with np.load(tmp_path / "scores.npz", allow_pickle=False) as scores:
        assert len(scores["wiki_kl"]) == len(scores["wiki_documents"]) == len(scores["wiki_small_nll"])
    assert json.loads((tmp_path / "quality.json").read_text())["language"]["context"] == 48
