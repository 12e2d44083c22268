"""Pictures of any shape become what a checkpoint's preprocessor_config.json asks for."""

import json

import numpy as np
import pytest
from PIL import Image

from compress.config.data import Resize
from compress.data.pictures import preparation

SQUARE = {"size": {"height": 8, "width": 8}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def prepared(image, folder, **settings):
    (folder / "preprocessor_config.json").write_text(json.dumps({**SQUARE, **settings}))
    return preparation(folder, Resize())(image)


def picture(height, width, channels=3):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, channels)).astype(np.uint8)
    return Image.fromarray(pixels if channels > 1 else pixels[..., 0])


def test_two_sides_squash(tmp_path):
    """A net of one's own: as transformers' processors read the same words."""
    image = picture(12, 36)
    expected = np.asarray(image.resize((8, 8), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(prepared(image, tmp_path), expected)


def test_the_shorter_side_and_a_crop(tmp_path):
    image = picture(10, 30)
    settings = {"size": {"shortest_edge": 10}, "do_center_crop": True, "crop_size": {"height": 8, "width": 6}}
    found = prepared(image, tmp_path, resample=3, **settings)
    np.testing.assert_array_equal(found, np.asarray(image)[1:9, 12:18])


def test_a_share_of_the_crop_is_timms(tmp_path):
    image = picture(20, 20)
    expected = image.resize((10, 10), Image.Resampling.LANCZOS).crop((1, 1, 9, 9))
    found = prepared(image, tmp_path, crop_pct=0.8, do_resize=True, resample=1)
    np.testing.assert_array_equal(found, np.asarray(expected))


def test_what_is_not_resized_stays(tmp_path):
    image = picture(12, 36)
    np.testing.assert_array_equal(prepared(image, tmp_path, do_resize=False), np.asarray(image))
    np.testing.assert_array_equal(preparation(None, Resize())(image), np.asarray(image))


@pytest.mark.parametrize(
    ("settings", "upright"), [({"image_processor_type": "ViTImageProcessor"}, True), ({}, False)]
)
def test_pictures_on_their_side(settings, upright, tmp_path):
    """transformers turns them, torchvision and timm do not."""
    image = picture(8, 8)
    image.getexif()[0x0112] = 3  # upside down
    expected = np.asarray(image)[::-1, ::-1] if upright else np.asarray(image)
    np.testing.assert_array_equal(prepared(image, tmp_path, **settings), expected)


def test_grey_for_three_channels_and_colours_for_one(tmp_path):
    grey = picture(8, 8, 1)
    assert prepared(grey, tmp_path).shape == (8, 8, 3)
    one = {"image_mean": [0.5], "image_std": [0.5]}
    np.testing.assert_array_equal(prepared(grey.convert("RGB"), tmp_path, **one)[..., 0], np.asarray(grey))
    with pytest.raises(ValueError, match="a coloured picture, for a model of 1 channels"):
        prepared(picture(8, 8), tmp_path, **one)
