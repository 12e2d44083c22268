"""Metrics of text tasks from answers that were stored, against scikit-learn and by hand."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import f1_score, matthews_corrcoef, ndcg_score, roc_auc_score

from compress.config.data import Split
from compress.config.records import RecordData, TrainingSet
from compress.data import HeldOut
from compress.data.record import Record
from compress.errors import ConfigError
from compress.metrics.quality import Scored
from compress.tasks.question_answering import metrics as answering
from compress.tasks.question_answering.options import QuestionAnswering
from compress.tasks.reranking import metrics as reranking
from compress.tasks.reranking.options import Reranking
from compress.tasks.text_classification import metrics as classification
from compress.tasks.text_classification.options import TextClassification
from compress.tasks.token_classification import metrics as tagging
from compress.tasks.token_classification.options import TokenClassification
from tests.heads import CLASSES

RECORDS = RecordData(train_set=TrainingSet(source="path:x"))


@pytest.fixture
def compared(tmp_path):
    """What `compare` makes of stored answers of both models."""

    def compare(task, config, file, dense, small, examples, **described):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", **described}))
        folders = [tmp_path / name for name in ("dense", "small")]
        for folder, answers in zip(folders, (dense, small), strict=True):
            folder.mkdir(exist_ok=True)
            np.save(folder / file, answers)
        models = [Scored(tmp_path, tmp_path, folder) for folder in folders]
        splits = SimpleNamespace(test=SimpleNamespace(examples=tuple(examples)))
        return task.compare(config, models[1], models[0], HeldOut(splits, Split.test, None))[0]

    return compare


def names(values):
    return {"id2label": {str(number): name for number, name in enumerate(values)}}


def test_classes(compared):
    random = np.random.default_rng(0)
    truth = random.integers(0, 3, 80)
    dense, small = (random.normal(size=(80, 3)) + 2 * np.eye(3)[truth] for _ in range(2))
    examples = [Record(text=f"text {i}", labels=(label,)) for i, label in enumerate(truth)]
    found = compared(
        classification, TextClassification(), "logits.npy", dense, small, examples, **names(CLASSES)
    )
    said = small.argmax(1)
    assert found.primary == "accuracy"
    assert found.quality["accuracy"].value == pytest.approx((said == truth).mean())
    assert found.quality["macro_f1"].value == pytest.approx(f1_score(truth, said, average="macro"))
    assert found.quality["mcc"].value == pytest.approx(matthews_corrcoef(truth, said))
    probabilities = np.exp(small) / np.exp(small).sum(1, keepdims=True)
    area = np.mean([roc_auc_score(truth == k, np.log(probabilities[:, k])) for k in range(3)])
    assert found.quality["auc"].value == pytest.approx(area)
    assert found.drop_from_dense["accuracy"].value == pytest.approx(
        (dense.argmax(1) == truth).mean() - (said == truth).mean()
    )
    assert found.classification.changed[0].text.startswith("text ")
    assert {*found.quality, *found.fidelity} <= set(TextClassification().metrics(RECORDS))


def test_two_classes_have_a_threshold(compared):
    random = np.random.default_rng(1)
    truth = random.integers(0, 2, 60)
    dense = np.stack([np.zeros(60), random.normal(size=60) + 2 * truth - 1], 1)
    small = dense - [[0, 1.5]]  # the same order, less sure
    examples = [Record(text="a", labels=(label,), group=str(i)) for i, label in enumerate(truth)]
    found = compared(
        classification, TextClassification(), "logits.npy", dense, small, examples, **names(["no", "yes"])
    )
    [moved] = found.classification.thresholds
    assert moved.name == "yes"
    assert moved.variant < moved.dense
    assert moved.cost > 0


def test_several_labels(compared):
    random = np.random.default_rng(2)
    truth = random.random((70, 3)) < 0.4
    dense, small = (random.normal(size=(70, 3)) + 2 * truth - 1 for _ in range(2))
    examples = [Record(text=f"{i}", labels=tuple(row.astype(float))) for i, row in enumerate(truth)]
    described = {"problem_type": "multi_label_classification", **names(CLASSES)}
    found = compared(classification, TextClassification(), "logits.npy", dense, small, examples, **described)
    assert found.primary == "micro_f1"
    assert found.quality["micro_f1"].value == pytest.approx(f1_score(truth, small > 0, average="micro"))
    assert found.quality["macro_f1"].value == pytest.approx(f1_score(truth, small > 0, average="macro"))
    assert found.quality["accuracy"].value == pytest.approx(((small > 0) == truth).all(1).mean())
    for part in found.text.parts:
        column = CLASSES.index(part.name)
        assert part.value == pytest.approx(f1_score(truth[:, column], small[:, column] > 0))
    assert len(found.text.thresholds) == 3


def test_values(compared):
    random = np.random.default_rng(3)
    truth = random.normal(size=50)
    dense, small = (truth[:, None] + random.normal(size=(50, 1)) * 0.3 for _ in range(2))
    examples = [Record(text=f"{i}", labels=(value,)) for i, value in enumerate(truth)]
    found = compared(
        classification, TextClassification(), "logits.npy", dense, small, examples, **names(["LABEL_0"])
    )
    assert found.primary == "spearman"
    assert found.quality["pearson"].value == pytest.approx(np.corrcoef(truth, small[:, 0])[0, 1])


def test_without_labels_nearness_is_what_there_is(compared):
    logits = np.random.default_rng(4).normal(size=(20, 3))
    texts = [f"text {i}" for i in range(20)]
    found = compared(
        classification, TextClassification(), "logits.npy", logits, logits, texts, **names(CLASSES)
    )
    assert (found.primary, found.quality) == ("agreement", {})
    assert found.fidelity["agreement"].value == 1
    assert found.drop_from_dense["kl"].value == pytest.approx(0, abs=1e-12)
    wanted = TextClassification(primary="macro_f1")
    with pytest.raises(ConfigError, match=r"no metric of this model and data\n  found:   macro_f1"):
        compared(classification, wanted, "logits.npy", logits, logits, texts, **names(CLASSES))


def test_rankings(compared):
    random = np.random.default_rng(5)
    gains = [tuple(random.permutation([2.0, 1.0, *[0.0] * 10])) for _ in range(30)]
    dense, small = (np.concatenate(gains) + random.normal(size=360) for _ in range(2))
    examples = [
        Record(text=f"{i}", candidates=tuple(f"passage {k}" for k in range(12)), relevance=row)
        for i, row in enumerate(gains)
    ]
    found = compared(reranking, Reranking(), "logits.npy", dense, small, examples)
    assert found.primary == "ndcg@10"
    expected = ndcg_score(np.array(gains), small.reshape(30, 12), k=10)
    assert found.quality["ndcg@10"].value == pytest.approx(expected)
    assert found.fidelity["rank_correlation"].value < 1


def test_entities(compared):
    """The example of seqeval's README: F1 0.5, accuracy 0.8."""
    tags = ["O", "B-MISC", "I-MISC", "B-PER", "I-PER"]
    truth = [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    said = [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    logits = np.eye(5)[[tags.index(tag) for of in said for tag in of]]
    perfect = np.eye(5)[[tags.index(tag) for of in truth for tag in of]]
    examples = [Record(words=tuple("x" * len(of)), tags=tuple(map(tags.index, of))) for of in truth]
    found = compared(tagging, TokenClassification(), "logits.npy", perfect, logits, examples, **names(tags))
    assert found.primary == "entity_f1"
    assert found.quality["entity_f1"].value == 0.5
    assert found.quality["accuracy"].value == 0.8
    assert found.drop_from_dense["entity_f1"].value == 0.5
    parts = {part.name: (part.examples, part.value, part.drop.value) for part in found.text.parts}
    assert parts == {"MISC": (1, 0, 1), "PER": (1, 1, 0)}
    [changed] = found.text.changed
    assert (changed.expected, changed.variant) == ("x x x (MISC)", "x x x x (MISC)")


def test_answers(compared):
    contexts = ["the old river runs", "a quiet garden", "music again"]
    answers = [((4, "old river"),), ((2, "quiet garden"),), ((0, "music"),)]
    examples = [
        Record(text="what", pair=context, answers=of) for context, of in zip(contexts, answers, strict=True)
    ]
    dense = np.array([[4, 13, 1], [2, 14, 2], [0, 5, 3]])
    small = np.array([[8, 13, 1], [0, 14, 2], [6, 11, 1]])  # "river", "a quiet garden", "again"
    found = compared(answering, QuestionAnswering(), "answers.npy", dense, small, examples)
    assert found.primary == "f1"
    assert found.quality["exact_match"].value == pytest.approx(1 / 3)  # articles do not count
    assert found.quality["f1"].value == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert found.fidelity["agreement"].value == 0
    assert (found.text.lost, found.text.gained) == (2, 0)
