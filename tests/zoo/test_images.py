"""Every published classifier of the zoo is read as stock transformers reads it, or refused by name."""

import json

import numpy as np
import pytest
import transformers
from PIL import Image
from transformers.image_utils import load_image

from compress import tasks
from compress.config.data import ImageData, ImageSet
from compress.config.model import ImageClassifierModel
from compress.data import load_splits, open_splits
from compress.errors import GateError, ModelError
from compress.models import read_summary
from compress.stages.result import read_result
from tests.zoo.images import PUBLISHED, SLOW, publish
from tests.zoo.sample import every_second

NAMES = [
    *every_second(name for name in PUBLISHED if name not in SLOW),
    *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW),
]


def imported(folder, out):
    out.mkdir()
    tasks.import_model(ImageClassifierModel(source=f"path:{folder}"), out)
    return out


@pytest.mark.parametrize("name", NAMES)
def test_it_is_read_as_transformers_reads_it(name, tmp_path):
    """Also what we write: stock transformers prepares images by it as by what was published."""
    published = publish(name, tmp_path / "published")
    out = imported(published, tmp_path / "out")
    numbers = read_result(out).gates[0].numbers
    assert numbers["equal_classes"] == 1
    assert numbers["max_abs_diff_of_pixels"] < 1e-5
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8))
    image = image.convert("L") if name == "grey" else image
    before, after = (
        transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")(
            images=image, return_tensors="np"
        )
        for folder in (published, out)
    )
    np.testing.assert_array_equal(before["pixel_values"], after["pixel_values"])


def test_the_code_of_the_card_computes_the_same_pixels(tmp_path):
    """From bytes; and it names the processor, which prepares pictures of any size."""
    out = imported(publish("rescaled to 2", tmp_path / "published"), tmp_path / "out")
    lines = read_summary(out).card["example_code"].splitlines()
    assert any('AutoImageProcessor.from_pretrained(".", backend="pil")' in line for line in lines)
    scope = {"np": np, "images": np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3))}
    exec("\n".join(line for line in lines if line.startswith(("mean", "pixels"))), scope)
    processor = transformers.AutoImageProcessor.from_pretrained(out, backend="pil")
    expected = processor(images=list(scope["images"].astype(np.uint8)), return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(scope["pixels"], expected, atol=1e-5)


def test_pictures_of_a_data_set_become_the_pixels_of_the_stock_processor(tmp_path):
    """Sizes, modes and orientations mixed in one set, with their labels."""
    published = publish("shorter side, cropped", tmp_path / "published")
    config = json.loads((published / "config.json").read_text())
    config["id2label"] = {"0": "dog", "1": "Cat", "2": "polar bear"}
    (published / "config.json").write_text(json.dumps(config))
    random, files = np.random.default_rng(0), {}
    for split in ("train", "test"):
        for label in ("cat", "dog", "polar_bear"):
            (tmp_path / split / label).mkdir(parents=True)
            for mode in ("RGB", "L", "P", "RGBA", "LA", "1", "CMYK"):
                image = Image.fromarray(
                    random.integers(0, 256, (40, random.integers(20, 90), 4)).astype(np.uint8)
                )
                image = image if mode == "RGBA" else image.convert("RGB").convert(mode)
                path = tmp_path / split / label / f"{mode}.{'jpg' if mode == 'CMYK' else 'png'}"
                exif = Image.Exif()
                exif[0x0112] = 8
                image.save(path, exif=exif)
                files[path] = label
    sets = {f"{split}_set": ImageSet(source=f"path:{tmp_path / split}") for split in ("train", "test")}
    out = imported(published, tmp_path / "out")
    open_splits(ImageData(**sets, calibration=3, select=3), tmp_path / "splits", checkpoint=out)
    splits = load_splits(tmp_path / "splits")
    assert splits.classes == ("dog", "Cat", "polar bear")
    processor = transformers.AutoImageProcessor.from_pretrained(published, backend="pil")
    expected = {"dog": [], "cat": [], "polar_bear": []}
    for path in sorted(path for path in files if path.parts[-3] == "test"):
        pixels = processor(images=load_image(str(path)), return_tensors="np")["pixel_values"][0]
        expected[files[path]].append(pixels)
    model = tasks.load(out)
    for number, name in enumerate(expected):
        ours = model.inputs(splits.test.images[splits.test.labels == number])["pixel_values"]
        np.testing.assert_allclose(ours.numpy(), np.stack(expected[name]), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("shorter side, cropped", {"do_center_crop": False}, r"of a size that its settings do not name"),
        (
            "squashed",
            {"size": {"height": 48, "width": 48}},
            r"does not take the images that its preprocessing",
        ),
        ("squashed", {"image_processor_type": "NoSuchProcessor"}, r"does not work in transformers"),
        ("squashed", {"image_processor_type": "PerceiverImageProcessor", "crop_size": 40}, r"of a size that"),
    ],
)
def test_it_is_refused_by_name(name, changes, said, tmp_path):
    published = publish(name, tmp_path / "published", **changes)
    with pytest.raises(ModelError, match=said):
        imported(published, tmp_path / "out")


def test_names_that_are_numbers(tmp_path):
    """Of outputs, in config.json: no strings, as JSON has them."""
    published = publish("squashed", tmp_path / "published")
    config = json.loads((published / "config.json").read_text())
    (published / "config.json").write_text(json.dumps({**config, "id2label": {"0": 7, "1": 8, "2": 9}}))
    stock = transformers.AutoModelForImageClassification.from_pretrained(published).config.id2label
    model = tasks.load(imported(published, tmp_path / "out"))
    assert list(model.classes) == [str(stock[number]) for number in range(3)]


def test_pixels_that_differ_are_told_apart(tmp_path, monkeypatch):
    """A processor that normalises otherwise than its settings say."""
    published = publish("squashed", tmp_path / "published")
    kind = transformers.ViTImageProcessorPil
    stock = kind.normalize
    monkeypatch.setattr(
        kind, "normalize", lambda self, image, mean, std, **_: stock(self, image, mean, std) + 0.01
    )
    with pytest.raises(
        GateError, match=r"read the pixels of this model(.|\n)*found: +.*max abs difference 0\.01"
    ):
        imported(published, tmp_path / "out")
