"""Training of classifiers: it learns, it goes on where it stopped, and its parts do what they say."""

import math

import numpy as np
import pytest
import torch

from compress import tasks
from compress.config.recover import Finetune, Optimizer, Precision, Supervised
from compress.errors import ConfigError
from compress.recover import recover, train_baseline
from compress.stages.result import read_result
from compress.tasks.image_classification.augment import augment, shifted, squares
from compress.tasks.image_classification.baseline import preprocessing_of
from compress.tasks.image_classification.training import ClassifierTraining, one_cycle
from compress.training.distillation import distillation

KWARGS = {"widths": [8, 12], "blocks": 1, "classes": 3}
FACTS = {"task": "image_classification", "source": "path:x", "base_model": "x", "license": "mit"}


def config(**changes):
    usual = {"epochs": 6, "batch_size": 16, "precision": Precision.float32, "augment": False}
    return Supervised(**{**usual, **changes})


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture
def train(image_splits_folder, tmp_path):
    def call(name="out", scratch="scratch", builder="resnet", kwargs=KWARGS, **changes):
        for each in (name, scratch):
            (tmp_path / each).mkdir(exist_ok=True)
        train_baseline(
            config(**changes),
            f"compress.models.image_nets:{builder}",
            kwargs,
            FACTS,
            image_splits_folder,
            tmp_path / name,
            tmp_path / scratch,
        )
        return tmp_path / name

    return call


def accuracy(folder, split):
    model = tasks.load(folder)
    with torch.no_grad():
        answers = model.run(model.inputs(split.images)).argmax(1).numpy()
    return (answers == split.labels).mean()


@pytest.mark.parametrize(
    ("builder", "kwargs", "changes"),
    [
        ("resnet", KWARGS, {}),
        ("depthwise", {"widths": [8, 12], "strides": [1, 2], "classes": 3}, {"ema": 0.9}),
        (
            "vit",
            {"width": 16, "layers": 2, "heads": 2, "ffn": 32, "side": 8, "patch": 4, "classes": 3},
            {"optimizer": Optimizer.adamw, "learning_rate": 0.005, "epochs": 20},
        ),
    ],
)
def test_a_baseline_learns(builder, kwargs, changes, train, image_splits):
    folder = train(builder=builder, kwargs=kwargs, **changes)
    assert accuracy(folder, image_splits.test) > 0.9  # a third by chance
    model = tasks.load(folder)
    assert model.classes == ["top", "middle", "bottom"]
    assert model.preprocessing["image_mean"][0] == pytest.approx(
        image_splits.train.images.mean() / 255, abs=1e-5
    )


def test_the_same_seed_gives_the_same_weights(train):
    assert weights(train("a", "s1", epochs=2)) == weights(train("b", "s2", epochs=2))
    assert weights(train("a", "s3", epochs=2, seed=1)) != weights(train("b", "s4", epochs=2))


class Killed(Exception):
    pass


def test_an_interrupted_training_goes_on(train, monkeypatch):
    whole = weights(train("whole", "undisturbed", augment=True, ema=0.5))
    learn, learned = ClassifierTraining.learn, []

    def die(self, rows):
        if self.history.step == 33:  # of ten an epoch
            raise Killed
        return learn(self, rows)

    def note(self, rows):
        learned.append(self.history.step)
        return learn(self, rows)

    monkeypatch.setattr(ClassifierTraining, "learn", die)
    with pytest.raises(Killed):
        train(augment=True, ema=0.5)
    monkeypatch.setattr(ClassifierTraining, "learn", note)
    assert weights(train(augment=True, ema=0.5)) == whole
    assert learned == list(range(30, 60))


def test_damaged_progress_starts_again(train, tmp_path):
    whole = weights(train("whole", epochs=2))
    (tmp_path / "scratch" / "training.pt").write_bytes(b"torn")
    assert weights(train("again", epochs=2)) == whole


def test_it_stops_without_progress(train, monkeypatch):
    monkeypatch.setattr(ClassifierTraining, "score", lambda self: 0.5)

    told = read_result(train(epochs=50, patience=3)).facts["recovery"]
    assert len(told["steps"]) == 4
    assert told["best_epoch"] == 1


def test_finetuning_follows_the_teacher(
    train, image_checkpoints, image_splits_folder, image_splits, tmp_path
):
    teacher = train()
    (tmp_path / "tuned").mkdir()
    tuning = Finetune(epochs=5, batch_size=16, precision=Precision.float32, augment=False, learning_rate=0.1)
    recover(tuning, image_checkpoints["resnet"], teacher, image_splits_folder, tmp_path / "tuned", tmp_path)
    assert accuracy(image_checkpoints["resnet"], image_splits.test) < 0.7
    assert accuracy(tmp_path / "tuned", image_splits.test) > 0.85
    assert "fine-tuned for 5 epochs" in tasks.load(tmp_path / "tuned").facts.lineage[-1]


# ---------------------------------------------------------------- parts


def test_the_rate_rises_and_falls_once():
    rates = [one_cycle(step / 100, 0.2) for step in range(101)]
    assert rates[0] < 0.01
    assert max(rates) == pytest.approx(1.0, abs=0.01)
    assert rates.index(max(rates)) == 20
    assert rates[60] == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.5)))
    assert rates[100] == pytest.approx(0.0)
    assert one_cycle(0.0, 0.0) == 1.0


def test_distillation_by_hand():
    student, teacher = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    soft = [np.exp(x) / np.exp(x).sum() for x in (np.array([0.5, 0.0]), np.array([0.0, 1.0]))]
    kl = (soft[1] * np.log(soft[1] / soft[0])).sum()
    assert float(distillation(student, teacher, 2.0)) == pytest.approx(4 * kl, rel=1e-5)
    assert float(distillation(teacher, teacher, 3.0)) == pytest.approx(0, abs=1e-6)


def test_shifts_by_hand():
    pixels = torch.arange(16.0).reshape(1, 1, 4, 4).repeat(2, 1, 1, 1)
    found = shifted(pixels, torch.tensor([[2, 2], [3, 1]]), 2)
    assert torch.equal(found[0], pixels[0])
    expected = torch.zeros(4, 4)
    expected[:3, 1:] = pixels[1, 0, 1:, :3]  # one up, one to the right, zeros behind
    assert torch.equal(found[1, 0], expected)


def test_squares_lie_around_their_centre():
    found = squares(torch.tensor([[10.0, 14.0]]), 28, 28)[0]
    assert int(found.sum()) == 49
    rows, columns = found.nonzero(as_tuple=True)
    assert (int(rows.min()), int(rows.max())) == (7, 13)
    assert (int(columns.min()), int(columns.max())) == (11, 17)


def test_augmentation_is_of_its_seed_and_keeps_the_shape():
    pixels = torch.rand(8, 3, 28, 28)
    made = [augment(pixels, torch.Generator().manual_seed(seed), 2, True, 0.5) for seed in (0, 0, 1)]
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
    assert made[0].shape == pixels.shape


def test_preprocessing_of_the_train_split(image_splits):
    found = preprocessing_of(image_splits)
    pixels = image_splits.train.images / 255
    assert found["image_mean"] == [pytest.approx(pixels.mean(), abs=1e-5)]
    assert found["image_std"] == [pytest.approx(pixels.std(), abs=1e-5)]
    assert found["size"] == {"height": 8, "width": 8}


@pytest.mark.parametrize(
    "changes", [{"epochs": 0}, {"learning_rate": 0.0}, {"ema": 1.0}, {"max_minutes": 0.0}, {"warmup": 1.5}]
)
def test_ranges(changes):
    with pytest.raises(ConfigError):
        Supervised(**changes)


def test_a_baseline_learns_from_a_teacher(train, tmp_path):
    """One that learns from answers alone ends nearer to its teacher than one that learns from labels."""
    teacher = train("teacher", scratch="one")
    taught = train(
        "taught", scratch="two", seed=1, distill=1.0, teacher=f"path:{teacher}", label_smoothing=0.0
    )
    alone = train("alone", scratch="three", seed=1, label_smoothing=0.0)
    assert f"100% of the loss from the answers of path:{teacher}" in tasks.load(taught).facts.lineage[-1]
    pixels = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1), np.uint8)
    nets = [tasks.load(folder) for folder in (teacher, taught, alone)]
    wanted, *found = [net.run(net.inputs(pixels)).detach().softmax(1) for net in nets]
    assert (found[0] - wanted).abs().mean() < (found[1] - wanted).abs().mean()


def test_a_teacher_and_its_share_belong_together():
    for changes in ({"distill": 0.5}, {"teacher": "path:x"}):
        with pytest.raises(ConfigError, match="belong together"):
            config(**changes)
