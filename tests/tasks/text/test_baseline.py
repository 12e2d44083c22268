"""`compress train` with a new head: what can be learned is, and stock transformers opens the result."""

import json
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers

from compress import tasks
from compress.config.declare import declare_options
from compress.config.records import RecordData, TrainingSet
from compress.config.recover import TrainHead
from compress.data import open_splits
from compress.data.record import Record
from compress.errors import DataError, ModelError
from compress.recover import train_baseline
from compress.registry import OPTIONS
from compress.tasks.text import losses
from compress.tasks.text.baseline import HeadTraining, answers_of
from compress.tasks.text.candidates import fewer_candidates
from compress.tasks.text.kind import Kind
from tests.heads import CLASSES, SIZES, TASKS, WORDS, words, write_words

declare_options()


def learnable(rng: random.Random, task: str) -> dict[str, object]:
    """What one word of a text tells."""
    if task == "text_classification":
        said = words(rng, 8)
        return {"text": " ".join([WORDS[rng.randrange(3)], *said]), "label": None}
    if task == "token_classification":
        said = words(rng, 8)
        return {"words": said, "tags": ["B-LOC" if word == WORDS[2] else "O" for word in said]}
    if task == "reranking":
        query = " ".join(words(rng, 4))
        texts = [" ".join([first, *rng.choices(WORDS[3:30], k=4)]) for first in (WORDS[2], *WORDS[30:33])]
        return {"query": query, "positive": texts[0], "negatives": texts[1:]}
    context = words(rng, 12)
    return {
        "question": "what?",
        "context": " ".join(context),
        "answers": {"text": [context[0]], "answer_start": [0]},
    }


@pytest.fixture
def encoder(tmp_path):
    folder = tmp_path / "encoder"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.AutoConfig.for_model("bert", **SIZES)
        transformers.AutoModel.from_config(config).save_pretrained(folder)
    write_words(folder)
    return folder


@pytest.fixture
def train(encoder, tmp_path):
    def train(task: str, out: str = "out", scratch: str = "scratch", **config):
        data, splits = tmp_path / "data.jsonl", tmp_path / "splits"
        if not splits.is_dir():
            rng = random.Random(1)
            rows = [learnable(rng, task) for _ in range(160)]
            for row in rows:
                if "label" in row:
                    row["label"] = CLASSES[WORDS.index(str(row["text"]).split()[0])]
            data.write_text("".join(json.dumps(row) + "\n" for row in rows))
            chosen = RecordData(
                train_set=TrainingSet(source=f"path:{data}"), calibration=8, select=24, test=24
            )
            open_splits(chosen, splits)
        given = {"steps": 40, "evaluate_every": 4, "learning_rate": 1e-2, "batch_tokens": 256}
        option = TrainHead(encoder=f"path:{encoder}", **{**given, **config})
        net = OPTIONS["model"][TASKS[task][0]](source="path:x").net()
        facts = {"task": task, "source": "path:x", "base_model": "x", "license": "mit"}
        for name in (out, scratch):
            (tmp_path / name).mkdir(exist_ok=True)
        train_baseline(option, *net, facts, splits, tmp_path / out, tmp_path / scratch)
        return tmp_path / out

    return train


@pytest.mark.parametrize(
    "task",
    [pytest.param(task, marks=[] if task == "text_classification" else pytest.mark.slow) for task in TASKS],
)
def test_what_can_be_learned_is(task, train):
    # To compare two texts takes longer to learn, in smaller steps.
    out = train(task, **({"steps": 120, "learning_rate": 3e-3} if task == "reranking" else {}))
    curve = json.loads((out / "stage.json").read_text())["facts"]["training"]["select_loss"]
    assert min(curve) < 0.7 * curve[0]
    model = tasks.load(out)
    stock = getattr(transformers, TASKS[task][1]).from_pretrained(out).eval()
    inputs = model.tokenize(model.check_texts)
    with torch.no_grad():
        expected = stock(**inputs)
        for name, found in model.outputs(inputs).items():
            np.testing.assert_allclose(found, getattr(expected, name), atol=1e-5)
    if task == "text_classification":
        assert sorted(stock.config.id2label.values()) == sorted(CLASSES)
        assert stock.config.problem_type == "single_label_classification"


def test_a_training_that_was_cut_goes_on_to_the_same_weights(train, monkeypatch):
    whole = train("text_classification")
    learn = HeadTraining.learn

    def cut(self, rows):
        if self.history.step == 30:
            raise KeyboardInterrupt
        return learn(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(HeadTraining, "learn", cut)
        with pytest.raises(KeyboardInterrupt):
            train("text_classification", "resumed", "other")
    again = train("text_classification", "resumed", "other")
    assert (whole / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()


def test_an_encoder_that_lacks_weights(train, encoder):
    model = transformers.AutoModel.from_pretrained(encoder)
    state = {name: each for name, each in model.state_dict().items() if "layer.1.output" not in name}
    model.save_pretrained(encoder, state_dict=state)
    with pytest.raises(ModelError, match="weights are missing"):
        train("text_classification")


def test_data_without_labels():
    splits = SimpleNamespace(train=SimpleNamespace(examples=(Record(text="a"),)), names=())
    with pytest.raises(DataError, match="no labels"):
        answers_of(splits)


def test_fewer_candidates_keep_what_answers():
    record = Record(text="q", candidates=tuple("abcdef"), relevance=(0, 0, 1, 0, 0, 2))
    [fewer] = fewer_candidates([record], 4)
    assert len(fewer.candidates) == 4
    assert dict(zip(fewer.candidates, fewer.relevance, strict=True)).items() >= {"c": 1, "f": 2}.items()
    assert fewer_candidates([record], 4) == [fewer]
    assert fewer_candidates([Record(text="t", labels=(1.0,))], 4) == [Record(text="t", labels=(1.0,))]


def test_seldom_classes_count_as_much_where_asked_for():
    """By hand: logits 0, so that each example costs log 2, times its class's weight, over two examples."""
    answers, labels = torch.zeros(2, 2), torch.tensor([[0], [1]])
    error = losses.label_error(Kind.classes, answers, labels, torch.tensor([0.5, 3.0]))
    assert error.item() == pytest.approx((0.5 + 3.0) * np.log(2) / 2)
    several = losses.label_error(
        Kind.labels, torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), torch.tensor([4.0, 9.0])
    )
    assert several.item() == pytest.approx((4 + 1) * np.log(2))
