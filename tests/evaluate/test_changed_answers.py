"""Images whose answer changed: which are picked, and that their pictures are those images."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from compress.evaluate.changed_answers import BYTES, SHOWN, SIDE, changed_answers, pick, png


def opened(encoded):
    return Image.open(io.BytesIO(base64.b64decode(encoded)))


def test_what_went_wrong_comes_first():
    labels = np.array([0, 0, 0, 0, 0])
    dense = np.array([1, 0, 1, 0, 2])  # wrong, right, wrong, right, wrong
    small = np.array([0, 0, 2, 1, 2])  # gained, same, from wrong to wrong, lost, same
    assert pick(dense, small, labels) == [3, 0, 2]


def test_of_many_some_of_every_part_are_picked():
    labels, dense = np.zeros(600, int), np.zeros(600, int)
    small = np.zeros(600, int)
    small[100:] = 1  # the first 100 stay
    rows = pick(dense, small, labels)
    assert len(rows) == len(set(rows)) == SHOWN
    assert min(rows) == 100
    assert max(np.diff(rows)) - min(np.diff(rows)) <= 1


def test_all_that_changed_where_they_are_few():
    random = np.random.default_rng(0)
    labels, dense = random.integers(0, 3, (2, 40))
    small = dense.copy()
    small[::6] = (small[::6] + 1) % 3
    assert sorted(pick(dense, small, labels)) == list(range(0, 40, 6))
    assert pick(dense, dense, labels) == []


def test_names_confidences_and_pixels():
    probabilities = np.array([[0.7, 0.3], [0.2, 0.8]])
    images = np.random.default_rng(0).integers(0, 256, (2, 9, 7, 1)).astype(np.uint8)
    labels, examples = np.array([0, 0]), np.array([40, 90])
    (found,) = changed_answers(
        np.log(probabilities), np.log(probabilities[[1, 1]]), labels, ("cat", "dog"), images, examples
    )
    assert (found.example, found.label, found.dense, found.answer) == (40, "cat", "cat", "dog")
    assert found.dense_confidence == pytest.approx(0.7)
    assert found.confidence == pytest.approx(0.8)
    assert np.array_equal(np.asarray(opened(found.png)), images[0, ..., 0])


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
