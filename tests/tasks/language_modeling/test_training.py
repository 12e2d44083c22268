"""Distillation of a tiny pruned language model: the loss by hand, learning, resuming."""

import dataclasses

import numpy as np
import pytest
import torch

from compress import models
from compress.config.data import Documents, TextFile
from compress.config.recover import DistillLogits, Precision
from compress.data import load_splits, open_splits
from compress.errors import ConfigError, DataError, GateError
from compress.prune.tokens import cut_vocabulary
from compress.recover import recover
from compress.stages.result import read_result
from compress.tasks.language_modeling import training
from compress.tasks.language_modeling.model import CausalLM
from compress.tasks.language_modeling.training import Lessons, divergence, likeliest


def config(**changes):
    settings = {
        "steps": 12,
        "batch_windows": 2,
        "context": 32,
        "top_k": 16,
        "learning_rate": 3e-3,
        "evaluate_every": 4,
        "select_windows": 6,
        "precision": Precision.float32,
        **changes,
    }
    return DistillLogits(**settings)


@pytest.fixture(scope="module")
def splits(tmp_path_factory, language_texts):
    folder = tmp_path_factory.mktemp("documents")
    (folder / "text.txt").write_text("\n".join(language_texts))
    made = Documents(
        corpora={"text": TextFile(source=f"path:{folder}/text.txt")},
        test={"text": 4},
        select={"text": 10},
        calibration={"text": 4},
        train=["text"],
        min_words=5,
    )
    open_splits(made, folder / "splits")
    return folder / "splits"


@pytest.fixture(scope="module")
def teacher(language_checkpoints):
    return language_checkpoints["llama"]


@pytest.fixture(scope="module")
def pruned(teacher, tmp_path_factory):
    """The dense model with half of the feed-forward channels zeroed: worse, and of the same shape."""
    folder = tmp_path_factory.mktemp("pruned")
    model = CausalLM.open(teacher)
    with torch.no_grad():
        for layer in model.module.model.layers:
            layer.mlp.down_proj.weight[:, ::2] = 0
    model.save(folder, model.facts.after("pruned"))
    return folder


@pytest.fixture
def run(teacher, splits, tmp_path):
    def call(student, name="out", scratch="scratch", **changes):
        for folder in (name, scratch):
            (tmp_path / folder).mkdir(exist_ok=True)
        recover(config(**changes), student, teacher, splits, tmp_path / name, tmp_path / scratch)
        return tmp_path / name, read_result(tmp_path / name).facts["recovery"]

    return call


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


# ---------------------------------------------------------------- arithmetic


def test_the_loss_by_hand():
    """Two tokens known, two others as one."""
    teacher, student = np.array([0.5, 0.3, 0.1, 0.1]), np.array([0.4, 0.2, 0.3, 0.1])
    values, tokens = likeliest(torch.from_numpy(np.log(teacher))[None] + 5, 2)
    assert tokens.tolist() == [[0, 1]]
    np.testing.assert_allclose(values.exp().numpy(), [[0.5, 0.3]], rtol=1e-5)
    expected = 0.5 * np.log(0.5 / 0.4) + 0.3 * np.log(0.3 / 0.2) + 0.2 * np.log(0.2 / 0.4)
    found = divergence(torch.from_numpy(np.log(student))[None] - 3, values, tokens)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_with_all_tokens_it_is_the_divergence_and_never_more_with_fewer():
    random = torch.Generator().manual_seed(0)
    teacher, student = (torch.randn(7, 20, generator=random) * 2 for _ in range(2))
    expected = torch.nn.functional.kl_div(
        student.log_softmax(1), teacher.log_softmax(1), log_target=True, reduction="batchmean"
    )
    found = [float(divergence(student, *likeliest(teacher, k))) for k in (1, 5, 19, 50)]
    assert found == sorted(found)
    assert found[-1] == pytest.approx(float(expected), rel=1e-4)
    assert float(divergence(teacher, *likeliest(teacher, 5))) == pytest.approx(0, abs=1e-6)


def test_lessons_lie_on_disk(tmp_path):
    windows = torch.zeros(3, 4, dtype=torch.long)
    lessons = Lessons(tmp_path, windows, 2)
    values, tokens = -torch.rand(4, 2), torch.arange(8).view(4, 2)
    lessons.write(1, values, tokens)
    again = Lessons(tmp_path, windows, 2)
    assert again.known.tolist() == [False, True, False]
    found = again.read(1)
    torch.testing.assert_close(found[0], values, atol=1e-3, rtol=1e-3)
    assert torch.equal(found[1], tokens)
    assert (tmp_path / "values.npy").stat().st_size == 3 * 4 * 2 * 2 + 128
    (tmp_path / "known.npy").write_bytes(b"torn")
    assert not Lessons(tmp_path, windows, 2).known.any()
    assert not Lessons(tmp_path, windows, 3).known.any()


# ---------------------------------------------------------------- learning


def test_the_student_comes_closer(pruned, teacher, splits, run):
    out, told = run(pruned, steps=24)
    assert told["steps"] == [0, 4, 8, 12, 16, 20, 24]
    assert told["best"] == min(told["select_loss"]) < 0.8 * told["select_loss"][0]
    facts = models.read_facts(out)
    assert facts.lineage == ("pruned", "distilled for 24 steps, 0.0 M tokens")
    dense = CausalLM.open(teacher)
    windows = dense.windows(load_splits(splits).select.texts, 32)[:6]
    losses = []
    for folder in (pruned, out):  # over all tokens, which is more than over 16
        with torch.no_grad():
            own, expected = (
                model.module(windows).logits.log_softmax(-1) for model in (CausalLM.open(folder), dense)
            )
        losses.append(float((expected.exp() * (expected - own)).sum(-1).mean()))
    assert losses[1] < 0.8 * losses[0]
    assert told["select_loss"][0] <= losses[0]
    assert told["best"] <= losses[1]


def test_a_model_that_was_not_changed_stays_as_it_is(teacher, run):
    out, told = run(teacher, steps=4)
    assert told["select_loss"][0] == pytest.approx(0, abs=1e-4)
    if told["best"] == told["select_loss"][0]:
        assert weights(out) == weights(teacher)


def test_patience_ends_it_and_the_best_stays(pruned, run):
    out, told = run(pruned, learning_rate=1.0, patience=2, steps=40)
    assert told["step"] == 8
    assert weights(out) == weights(pruned)


def test_bfloat16_learns_too(pruned, run):
    _, told = run(pruned, precision=Precision.bfloat16)
    assert told["best"] < told["select_loss"][0]


def test_a_student_of_fewer_tokens(teacher, splits, tmp_path, run):
    model = CausalLM.open(teacher)
    (tmp_path / "fewer").mkdir()
    kept = cut_vocabulary(model, ["the old river"], 290, tmp_path / "fewer" / "files")
    model.save(tmp_path / "fewer", dataclasses.replace(model.facts, kept_tokens=kept))
    out, told = run(tmp_path / "fewer", steps=4)
    assert told["select_loss"][0] == pytest.approx(0, abs=1e-4)  # all else is the teacher's
    assert models.read_facts(out).kept_tokens == kept


# ---------------------------------------------------------------- resuming


def test_a_killed_run_goes_on_where_it_was(pruned, run, tmp_path, monkeypatch):
    whole, told = run(pruned, name="whole", scratch="one")
    learn = training.LogitsDistillation.learn

    def killed(self, rows):
        if self.history.step == 6:
            raise KeyboardInterrupt
        return learn(self, rows)

    monkeypatch.setattr(training.LogitsDistillation, "learn", killed)
    with pytest.raises(KeyboardInterrupt):
        run(pruned, scratch="two")
    monkeypatch.setattr(training.LogitsDistillation, "learn", learn)
    asked = []
    teach = training.LogitsDistillation._teach

    def counted(self, ids):
        asked.append(ids)
        return teach(self, ids)

    monkeypatch.setattr(training.LogitsDistillation, "_teach", counted)
    out, again = run(pruned, scratch="two")
    assert weights(out) == weights(whole)
    assert again["select_loss"] == told["select_loss"]
    assert len(asked) == 2 * 6  # the windows of steps 6 to 11; the others are known


def test_a_damaged_checkpoint_starts_again(pruned, run, tmp_path):
    whole, _ = run(pruned, name="whole", scratch="one")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "training.pt").write_bytes(b"torn")
    assert weights(run(pruned, scratch="two")[0]) == weights(whole)


# ---------------------------------------------------------------- bad input


def test_windows_longer_than_the_models(pruned, run):
    with pytest.raises(ConfigError, match=r"recover.context(.|\n)*at most 256"):
        run(pruned, context=300)


def test_too_little_text(pruned, teacher, splits, tmp_path, run, monkeypatch):
    data = load_splits(splits)
    few = dataclasses.replace(data.train, texts=("The river.",))
    monkeypatch.setattr(training, "load_texts", lambda _: dataclasses.replace(data, train=few))
    with pytest.raises(DataError, match="too little text"):
        run(pruned)
    none = dataclasses.replace(data.train, texts=())
    monkeypatch.setattr(training, "load_texts", lambda _: dataclasses.replace(data, train=none))
    with pytest.raises(DataError, match=r"empty(.|\n)*data.train"):
        run(pruned)


def test_a_loss_that_is_not_finite_stops_it(pruned, run, monkeypatch):
    monkeypatch.setattr(training, "divergence", lambda logits, *_: logits.float().mean() * float("nan"))
    with pytest.raises(GateError, match=r"not finite(.|\n)*learning_rate"):
        run(pruned)
