"""Classifiers of images judged on files; the pictures of the report."""

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from compress.config.compose import load_config
from compress.config.data import Resize, Split
from compress.config.evaluate import ImageClassification
from compress.data import open_splits
from compress.errors import ConfigError, GateError, ModelError
from compress.metrics.quality import load_quality
from compress.tasks.image_classification.metrics import BYTES, SIDE, check_logits, png
from tests.evaluate.stages import evaluate


def test_broken_logits():
    with pytest.raises(GateError, match="not finite"):
        check_logits(np.array([[1.0, np.nan, 0], [0, 1, 2]]), 3, "x")
    with pytest.raises(GateError, match="the same logits"):
        check_logits(np.ones((4, 3)), 3, "x")
    with pytest.raises(ModelError, match="one logit a class"):
        check_logits(np.ones((4, 2)), 3, "x")


def test_an_unknown_metric():
    with pytest.raises(ConfigError, match="did you mean 'accuracy'"):
        load_config(["experiment=fashion_resnet", "evaluate.primary=acuracy"])


def test_images_of_another_size(image_data, image_checkpoints, image_graphs, tmp_path):
    checkpoint, graph = image_checkpoints["resnet"], image_graphs["resnet"]
    open_splits(replace(image_data, resize=Resize(size=9)), tmp_path / "splits")
    with pytest.raises(ModelError, match=r"another shape than the model's(.|\n)*data\.resize\.size at 0"):
        evaluate(
            ImageClassification(),
            graph,
            graph,
            checkpoint,
            checkpoint,
            tmp_path / "splits",
            tmp_path / "out",
        )
    assert not list((tmp_path / "out").glob("*.json"))


def test_files(image_checkpoints, image_graphs, image_splits_folder, image_splits, tmp_path):
    checkpoint, graph = image_checkpoints["resnet"], image_graphs["resnet"]
    config = ImageClassification(resamples=100)
    evaluate(config, graph, graph, checkpoint, checkpoint, image_splits_folder, tmp_path / "test")
    found = load_quality(tmp_path / "test")
    with np.load(tmp_path / "test" / "scores.npz") as stored:
        right = stored["small"].argmax(1) == image_splits.test.labels
        assert found.quality["accuracy"].value == right.mean()
    folders = graph, graph, checkpoint, checkpoint, image_splits_folder, tmp_path / "select"
    evaluate(config, *folders, Split.select, 20)
    assert load_quality(tmp_path / "select").quality["accuracy"].n == 20


# ---------------------------------------------------------------- pictures


def opened(encoded):
    return Image.open(io.BytesIO(base64.b64decode(encoded)))


def test_pixels_stay():
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 1)).astype(np.uint8)
    assert np.array_equal(np.asarray(opened(png(image))), image[..., 0])


def test_colours_stay():
    image = np.random.default_rng(0).integers(0, 256, (28, 28, 3)).astype(np.uint8)
    assert np.array_equal(np.asarray(opened(png(image))), image)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_large_picture_is_shrunk_and_keeps_its_shape(channels):
    """Noise compresses worst."""
    image = np.random.default_rng(0).integers(0, 256, (900, 450, channels)).astype(np.uint8)
    found = opened(png(image))
    assert len(base64.b64decode(png(image))) <= BYTES
    assert max(found.size) <= SIDE
    assert found.height == pytest.approx(2 * found.width, abs=1)
    flat = np.full((900, 450, channels), 7, np.uint8)
    assert opened(png(flat)).size == (SIDE // 2, SIDE)  # no smaller than it has to be
