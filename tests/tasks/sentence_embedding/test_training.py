"""Distillation of a tiny pruned encoder: arithmetic, learning, resuming."""

import dataclasses

import pytest
import torch

from compress import models, tasks
from compress.config.prune import Keep, TransformerPrune
from compress.config.recover import Distill, Precision
from compress.data import TextSplit
from compress.errors import DataError, GateError
from compress.recover import recover
from compress.stages.result import read_result
from compress.tasks.sentence_embedding import training
from compress.training.precision import wants_bfloat16
from tests.prune.cuts import cut_channels, texts_of


def config(**changes):
    settings = {
        "steps": 24,
        "batch_tokens": 512,
        "learning_rate": 3e-3,
        "evaluate_every": 8,
        "precision": Precision.float32,
        "max_length": 64,
        **changes,
    }
    return Distill(**settings)


@pytest.fixture(scope="module")
def pruned(checkpoints, splits, tmp_path_factory):
    """BERT with a fifth of its channels, not repaired."""
    folder = tmp_path_factory.mktemp("pruned")
    encoder = tasks.load(checkpoints["bert"])
    chosen = TransformerPrune(keep=Keep(ffn=0.2), round_to=4, repair=False)
    cut_channels(texts_of(encoder, splits.calibration.texts), chosen)
    encoder.save(folder, encoder.facts.after("pruned"))
    return folder


@pytest.fixture
def run(checkpoints, splits_folder, tmp_path):
    """Distil from the dense BERT; the output folder and what its stage says."""

    def call(student, name="out", scratch="scratch", **changes):
        for folder in (name, scratch):
            (tmp_path / folder).mkdir(exist_ok=True)
        recover(
            config(**changes),
            student,
            checkpoints["bert"],
            splits_folder,
            tmp_path / name,
            tmp_path / scratch,
        )
        return tmp_path / name, read_result(tmp_path / name).facts["recovery"]

    return call


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


# ---------------------------------------------------------------- arithmetic


def test_precision_as_asked():
    assert wants_bfloat16(Precision.bfloat16)
    assert not wants_bfloat16(Precision.float32)
    assert wants_bfloat16(Precision.auto) in (True, False)


# ---------------------------------------------------------------- learning


def test_the_student_comes_closer(pruned, run, checkpoints, splits):
    out, told = run(pruned, steps=40)
    assert told["steps"] == [0, 8, 16, 24, 32, 40]
    assert told["train_loss"][0] is None
    assert told["train_loss"][-1] < 0.6 * told["train_loss"][1]
    assert told["best"] == max(told["select_cosine"])
    assert told["best"] > told["select_cosine"][0] + 0.02
    teacher = tasks.load(checkpoints["bert"])
    cosines = []
    for folder in (pruned, out):
        encoder = tasks.load(folder)
        assert not encoder.module.training
        inputs = encoder.tokenize(splits.select.texts)
        with torch.no_grad():
            pair = [e.module(**inputs)["sentence_embedding"] for e in (encoder, teacher)]
        cosines.append(float(torch.nn.functional.cosine_similarity(*pair).mean()))
    assert cosines == pytest.approx([told["select_cosine"][0], told["best"]], abs=1e-5)


def test_only_what_was_pruned_into_is_trained(pruned, run):
    from safetensors.torch import load_file

    before, after = load_file(pruned / "model.safetensors"), load_file(run(pruned)[0] / "model.safetensors")
    assert before.keys() == after.keys()
    for name in before:
        frozen = name.startswith(("embeddings.", "pooler."))
        assert torch.equal(before[name], after[name]) == frozen, name


def test_facts_tell_of_it(pruned, run):
    out, told = run(pruned)
    facts = models.read_facts(out)
    assert facts.lineage[0] == "pruned"
    assert facts.lineage[1].startswith("distilled for 24 steps, 0.0 M tokens")
    assert told["tokens"] > 24 * 256


def test_one_seed_gives_the_same_bytes_and_another_does_not(pruned, run):
    first, second, other = (
        run(pruned, name=str(i), scratch=f"scratch{i}", seed=seed)[0] for i, seed in enumerate((1, 1, 2))
    )
    assert weights(first) == weights(second)
    assert weights(first) != weights(other)


def test_bfloat16_learns_too(pruned, run):
    _, told = run(pruned, precision=Precision.bfloat16, steps=24)
    assert told["best"] > told["select_cosine"][0] + 0.01


def test_a_model_that_was_not_changed_stays_as_it_is(checkpoints, run):
    out, told = run(checkpoints["bert"], learning_rate=0.0, steps=8)
    assert told["best"] == pytest.approx(1.0, abs=1e-6)
    assert weights(out) == weights(checkpoints["bert"])


@pytest.mark.parametrize("name", ["roberta", "distilbert", "mpnet"])
def test_every_architecture_learns(name, checkpoints, splits, splits_folder, tmp_path):
    encoder = tasks.load(checkpoints[name])
    chosen = TransformerPrune(keep=Keep(ffn=0.2), round_to=4, repair=False)
    cut_channels(texts_of(encoder, splits.calibration.texts), chosen)
    for folder in ("pruned", "out", "scratch"):
        (tmp_path / folder).mkdir()
    encoder.save(tmp_path / "pruned", encoder.facts)
    folders = [tmp_path / "pruned", checkpoints[name], splits_folder, tmp_path / "out", tmp_path / "scratch"]
    recover(config(), *folders)
    curve = read_result(tmp_path / "out").facts["recovery"]["select_cosine"]
    assert max(curve) > curve[0]


# ---------------------------------------------------------------- hidden states


def test_layers_left_learn_from_the_layers_they_were(checkpoints, splits, splits_folder, tmp_path):
    """A dropped layer 0: layer 0 of the student is layer 1 of the teacher, and reproduces its states when
    given what it was given."""
    encoder = tasks.load(checkpoints["bert"])
    encoder.stack.drop_layer(0)
    encoder.save(tmp_path, encoder.facts.after("dropped", kept_layers=(1,)))
    student = tasks.load(tmp_path, attention="eager")
    teacher = tasks.load(checkpoints["bert"], attention="eager")
    trainer = training.EncoderDistillation(
        config(hidden_weight=1.0), student, teacher, splits.train.texts, splits.select.texts
    )
    assert trainer.layers == (1,)
    rows = [0, 1, 2]
    ids, mask = map(torch.from_numpy, student.processor.tokenizer.padded([trainer.rows[i].ids for i in rows]))
    inputs = {"input_ids": ids, "attention_mask": mask}
    with torch.no_grad():
        wanted = teacher.module.backbone(**inputs, output_hidden_states=True)
        given = student.module.backbone(**inputs, output_hidden_states=True)
    real = inputs["attention_mask"].bool()
    error = (given.hidden_states[1][real] - wanted.hidden_states[2][real]).pow(2).sum(1).mean()
    pooled = [
        trainer.student.module.pool(s.last_hidden_state, inputs["attention_mask"]) for s in (given, wanted)
    ]
    cosine = torch.nn.functional.cosine_similarity(*pooled)
    texts = sorted(splits.select.texts, key=lambda text: len(teacher.processor.encode([text])[0]))
    select = teacher.tokenize(texts[:64])
    with torch.no_grad():
        states = teacher.module.backbone(**select).last_hidden_state[select["attention_mask"].bool()]
    expected = 10 * (1 - cosine).mean() + error / states.var(0).sum()
    assert trainer.learn(rows)[0] == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("name", ["modernbert", "eurobert"])
def test_a_rotary_encoder_learns_from_layers_in_front_of_the_last_norm(name, checkpoints, splits):
    """The last layer dropped: the student's last gives what the teacher's second last gives."""
    student, teacher = (tasks.load(checkpoints[name]) for _ in range(2))
    left = len(student.stack.blocks) - 1
    student.stack.drop_layer(left)
    student.facts = dataclasses.replace(student.facts, kept_layers=tuple(range(left)))
    settings = config(hidden_weight=1.0, learning_rate=1e-3)
    trainer = training.EncoderDistillation(
        settings, student, teacher, splits.train.texts, splits.select.texts
    )
    assert sum("embed" in frozen for frozen in trainer.frozen) == len(trainer.frozen) > 0
    first, tokens = trainer.learn([0, 1, 2])
    batch = student.tokenize(splits.train.texts[:3], 64)
    with torch.no_grad():
        cosine = torch.nn.functional.cosine_similarity(student.run(batch), teacher.run(batch)).mean()
    assert first == pytest.approx(10 * (1 - float(cosine)), rel=1e-4)  # no error of hidden states
    assert tokens == int(batch["attention_mask"].sum())


def test_without_hidden_weight_only_the_embedding_counts(checkpoints, pruned, splits):
    student, teacher = tasks.load(pruned), tasks.load(checkpoints["bert"])
    trainer = training.EncoderDistillation(
        config(hidden_weight=0.0), student, teacher, splits.train.texts, splits.select.texts
    )
    batch = student.tokenize([splits.train.texts[0]], 64)
    with torch.no_grad():
        pair = [e.module(**batch)["sentence_embedding"] for e in (student, teacher)]
    cosine = float(torch.nn.functional.cosine_similarity(*pair).mean())
    assert trainer.learn([0])[0] == pytest.approx(10 * (1 - cosine), rel=1e-4)


# ---------------------------------------------------------------- stopping and resuming


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    ("steps_before", "changes"),
    [(9, {}), (37, {}), (21, {"hidden_weight": 1.0}), (37, {"precision": Precision.bfloat16})],
)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(steps_before, changes, pruned, run, monkeypatch):
    """40 steps are more than one epoch."""
    whole, told = run(pruned, name="whole", scratch="undisturbed", steps=40, **changes)
    learn, left = training.EncoderDistillation.learn, [steps_before]

    def die(self, rows):
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        return learn(self, rows)

    monkeypatch.setattr(training.EncoderDistillation, "learn", die)
    with pytest.raises(Killed):
        run(pruned, steps=40, **changes)
    left[0] = 1000
    resumed, again = run(pruned, steps=40, **changes)
    assert 1000 - left[0] == 40 - steps_before // 8 * 8  # from the last evaluation on, not from the start
    assert weights(resumed) == weights(whole)
    for key in ("steps", "train_loss", "select_cosine", "best", "tokens", "evaluations_since_best"):
        assert again[key] == told[key]


def test_a_run_killed_after_its_last_step_only_writes(pruned, run, monkeypatch):
    whole, _ = run(pruned, name="whole")
    monkeypatch.setattr(
        training.EncoderDistillation, "learn", lambda self, rows: pytest.fail("trained again")
    )
    again, _ = run(pruned, name="again")
    assert weights(again) == weights(whole)


def test_damaged_progress_starts_again(pruned, run, tmp_path):
    whole, _ = run(pruned, name="whole")
    (tmp_path / "torn").mkdir()
    saved = (tmp_path / "scratch" / "training.pt").read_bytes()
    for number, damage in enumerate((b"", saved[: len(saved) // 2], b"no zip file")):
        (tmp_path / "torn" / "training.pt").write_bytes(damage)
        again, _ = run(pruned, name=f"again{number}", scratch="torn")
        assert weights(again) == weights(whole)


def test_progress_holds_no_code(pruned, run, tmp_path):
    run(pruned)
    torch.load(tmp_path / "scratch" / "training.pt", weights_only=True)


def test_it_stops_when_nothing_improves_and_keeps_the_best(checkpoints, run):
    out, told = run(checkpoints["bert"], steps=400, evaluate_every=2, patience=3, learning_rate=0.01)
    assert told["steps"] == [0, 2, 4, 6]
    assert told["step"] == 6
    assert told["best"] == told["select_cosine"][0]
    assert weights(out) == weights(checkpoints["bert"])


def test_it_stops_in_time(pruned, run):
    _, told = run(pruned, steps=100_000, max_minutes=0.004)
    assert told["step"] < 1000
    assert told["steps"][-1] == told["step"]  # judged once more before it stops


def test_a_loss_that_is_not_finite(pruned, run, monkeypatch):
    study = training.EncoderDistillation._study

    def broken(self, inputs):
        seen = study(self, inputs)
        poison = float("nan") if torch.is_grad_enabled() else 1.0
        return dataclasses.replace(seen, answers=seen.answers * poison)

    monkeypatch.setattr(training.EncoderDistillation, "_study", broken)
    with pytest.raises(
        GateError, match=r"not finite\n  found:   nan at step 0\n  next: .*learning_rate.*0\.003"
    ):
        run(pruned)


def test_no_text_to_train_on(pruned, checkpoints, splits):
    empty = TextSplit(name="train", texts=(), documents=(), fingerprint="")
    pair = tasks.load(pruned), tasks.load(checkpoints["bert"])
    with pytest.raises(DataError, match="train split is empty"):
        training.EncoderDistillation(config(), *pair, empty.texts, splits.select.texts)


def test_texts_longer_than_the_model_are_cut(pruned, run):
    _, told = run(pruned, max_length=512, steps=8, batch_tokens=64)
    assert told["step"] == 8
