"""Images from files, and splits that share none."""

import gzip
import io
import json

import numpy as np
import pytest
from PIL import Image

from compress.config.data import ImageData, ImageFormat, ImageSet, Interpolation, Resize
from compress.data import input_digests, load_splits, open_splits
from compress.data.image_files import read_idx, read_images
from compress.data.images import fingerprint, load_images, split_images
from compress.data.pictures import preparation
from compress.errors import ConfigError, DataError


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    """Two classes of grey images of 4 x 5."""
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(3):
            pixels = random.integers(0, 256, (4, 5)).astype(np.uint8)
            (tmp_path / "set" / name / f"{i}.png").write_bytes(png(pixels))
    return tmp_path / "set"


def read(folder, resize=None, **changes):
    return read_images(ImageSet(source=f"path:{folder}", **changes), preparation(None, resize or Resize()))


# ---------------------------------------------------------------- files


def test_idx_by_hand(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"\0\0\x08\x02" + b"\0\0\0\x02" + b"\0\0\0\x03" + bytes(range(6)))
    assert read_idx(path).tolist() == [[0, 1, 2], [3, 4, 5]]
    (tmp_path / "x.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert read_idx(tmp_path / "x.gz").tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_truncated_idx_file_of_images(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(idx(np.zeros((9, 4, 4), np.uint8))[:-1])
    with pytest.raises(DataError, match=r"x is damaged.*\n  found: +159 bytes for 9 x 4 x 4\n  next: +fetch"):
        read_idx(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no idx file"),
        (b"\0\0\x0d\x01\0\0\0\0", "no idx file"),  # floats
        (b"\0\0\x08\x01\0\0\0\x05abc", "its length does not fit its shape"),
        (b"\0\0\x08\xff\0\0\0\x05abc", "no idx file"),
    ],
)
def test_damaged_idx(tmp_path, content, said):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_idx(tmp_path / "x")


def test_damaged_gzip(tmp_path):
    (tmp_path / "x.gz").write_bytes(gzip.compress(idx(np.zeros((9, 4, 4), np.uint8)))[:-9])
    with pytest.raises(DataError, match="damaged"):
        read_idx(tmp_path / "x.gz")


def test_a_folder_a_class(folder):
    images, labels, names = read(folder)
    assert names == ("cat", "dog")
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert images.shape == (6, 4, 5, 1)
    expected = np.asarray(Image.open(folder / "dog" / "2.png"))
    assert np.array_equal(images[5, :, :, 0], expected)


def test_what_notebooks_and_archives_leave_is_no_class(folder):
    for hidden in (".ipynb_checkpoints", "__MACOSX", "cat/.ipynb_checkpoints", ".git"):
        (folder / hidden).mkdir()
        (folder / hidden / "0.png").write_bytes(png(np.zeros((9, 9), np.uint8)))
    (folder / "cat" / "._0.png").write_bytes(b"no image")
    images, _, names = read(folder)
    assert names == ("cat", "dog")
    assert len(images) == 6


@pytest.mark.parametrize("suffix", ["tif", "TIFF", "gif", "pgm", "jfif", "jp2"])
def test_a_picture_of_any_suffix_that_pillow_reads(folder, suffix):
    path = folder / "cat" / f"x.{suffix}"
    image = Image.open(folder / "dog" / "0.png")
    image.save(path, "JPEG" if suffix == "jfif" else None)
    images, labels, _ = read(folder)
    assert labels.tolist() == [0, 0, 0, 0, 1, 1, 1]
    with Image.open(path) as again:
        assert np.array_equal(images[3, :, :, 0], np.asarray(again.convert("L")))


def test_what_another_program_would_be_run_for_is_no_picture(folder):
    Image.open(folder / "dog" / "0.png").save(folder / "cat" / "x.png", "EPS")
    with pytest.raises(DataError, match="not an image that can be read"):
        read(folder)


def test_what_pillow_only_writes_is_passed_over(folder):
    Image.open(folder / "dog" / "0.png").save(folder / "cat" / "x.pdf")
    assert len(read(folder)[0]) == 6


def test_a_class_without_a_picture_is_named(folder):
    for path in (folder / "dog").iterdir():
        path.rename(path.with_suffix(".txt"))
    with pytest.raises(DataError, match="no picture in the folder of the class dog"):
        read(folder)


def test_linked_folders_are_walked_once(folder, tmp_path):
    (folder / "dog").rename(tmp_path / "elsewhere")
    (folder / "dog").symlink_to(tmp_path / "elsewhere")
    (folder / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    (folder / "cat" / "again").symlink_to(folder / "cat")
    assert read(folder)[1].tolist() == [0] * 6 + [1] * 3


def test_grey_of_16_bits_is_scaled(folder):
    """As Pillow scales RGB of 16 bits, by the high byte; its own conversion of grey makes all this white."""
    values = (np.arange(20, dtype=np.uint16) * 3449).reshape(4, 5)
    (folder / "cat" / "0.png").write_bytes(png(values))
    images, _, _ = read(folder)
    assert images.shape == (6, 4, 5, 1)
    np.testing.assert_array_equal(images[0, :, :, 0], values // 256)


def test_grey_of_16_bits_in_parts_of_a_set_of_grey_and_transparent_images(folder):
    transparent = np.stack([np.arange(20, dtype=np.uint8).reshape(4, 5), np.full((4, 5), 9, np.uint8)], -1)
    (folder / "dog" / "0.png").write_bytes(png(transparent))
    images, _, _ = read(folder)
    assert images.shape == (6, 4, 5, 1)
    np.testing.assert_array_equal(images[3], transparent[..., :1])


def test_numbers_of_unknown_range_are_refused(tmp_path):
    (tmp_path / "cat").mkdir()
    Image.fromarray(np.ones((4, 5), np.float32)).save(tmp_path / "cat" / "a.tiff")
    (tmp_path / "cat" / "a.tiff").rename(tmp_path / "cat" / "a.png")
    with pytest.raises(DataError, match=r"a\.png is not an image that can be read\n  found: +mode F"):
        read(tmp_path)


def test_colours_are_kept(folder):
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    for path in folder.rglob("*.png"):
        path.write_bytes(png(pixels))
    images, _, _ = read(folder)
    assert np.array_equal(images[0], pixels)


def test_a_grey_image_among_coloured_ones(folder):
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    (folder / "cat" / "0.png").write_bytes(png(pixels))
    images, _, _ = read(folder)
    assert np.array_equal(images[0], pixels)
    grey = np.asarray(Image.open(folder / "cat" / "1.png"))
    assert all(np.array_equal(images[1, :, :, channel], grey) for channel in range(3))


def test_an_image_of_another_size_is_named(folder):
    (folder / "dog" / "1.png").write_bytes(png(np.zeros((5, 5), np.uint8)))
    with pytest.raises(DataError, match=r"1\.png: 5 x 5\n  next: .*data\.resize\.size"):
        read(folder)


def test_images_of_all_sizes_become_one(folder):
    (folder / "dog" / "1.png").write_bytes(png(np.zeros((50, 7), np.uint8)))
    images, _, _ = read(folder, Resize(size=6, crop=0.75))
    assert images.shape == (6, 6, 6, 1)


def test_resizing_by_hand(tmp_path):
    """8 x 4, the shorter side to 4 / 0.5 = 8: 16 x 8, of which the 4 x 4 in the middle stay."""
    image = np.zeros((8, 4), np.uint8)
    image[3:5] = 200
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.png").write_bytes(png(image))
    doubled = Image.fromarray(image).resize((8, 16), Image.Resampling.BICUBIC)
    expected = np.asarray(doubled)[6:10, 2:6]
    resize = Resize(size=4, crop=0.5, interpolation=Interpolation.bicubic)
    assert np.array_equal(read(tmp_path, resize)[0][0, :, :, 0], expected)


def test_idx_images_are_resized_too(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 4)).astype(np.uint8)
    (tmp_path / "images").write_bytes(idx(images))
    (tmp_path / "labels").write_bytes(idx(np.zeros(3, np.uint8)))
    found, _, _ = read(tmp_path, Resize(size=8), format=ImageFormat.idx, images="images", labels="labels")
    expected = np.asarray(Image.fromarray(images[1]).resize((8, 8), Image.Resampling.BILINEAR))
    assert np.array_equal(found[1, :, :, 0], expected)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_a_corrupt_image_is_named(folder, content):
    (folder / "dog" / "1.png").write_bytes(content)
    with pytest.raises(DataError, match=r"1\.png is not an image"):
        read(folder)


def test_a_truncated_image_is_named(folder):
    path = folder / "cat" / "0.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"0\.png is not an image"):
        read(folder)


def test_more_labels_than_images(tmp_path):
    (tmp_path / "images").write_bytes(idx(np.zeros((3, 4, 4), np.uint8)))
    (tmp_path / "labels").write_bytes(idx(np.zeros(4, np.uint8)))
    with pytest.raises(DataError, match="3 images, 4 labels"):
        read(tmp_path, format=ImageFormat.idx, images="images", labels="labels")


def test_images_and_labels_swapped(tmp_path):
    (tmp_path / "images").write_bytes(idx(np.zeros((3, 4, 4), np.uint8)))
    (tmp_path / "labels").write_bytes(idx(np.zeros(3, np.uint8)))
    with pytest.raises(DataError, match="swap"):
        read(tmp_path, format=ImageFormat.idx, images="labels", labels="images")


def test_two_files_that_fit_a_pattern(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match="not one file of images"):
        read(tmp_path, format=ImageFormat.idx)


# ---------------------------------------------------------------- splits


def test_no_image_is_in_two_splits(image_splits):
    seen = {}
    for name in ("calibration", "train", "select", "test"):
        for image in getattr(image_splits, name).images:
            assert seen.setdefault(image.tobytes(), name) == name
    sizes = {
        name: len(getattr(image_splits, name).labels) for name in ("calibration", "train", "select", "test")
    }
    assert sizes == {"calibration": 30, "train": 150, "select": 60, "test": 60}


def test_images_keep_their_labels(image_splits):
    for split in (image_splits.calibration, image_splits.train, image_splits.select, image_splits.test):
        rows = split.images[:, :, :, 0].astype(int).sum(2)  # of a third the first two rows are bright
        brightest = np.stack([rows[:, 0:2].sum(1), rows[:, 3:5].sum(1), rows[:, 6:8].sum(1)]).argmax(0)
        assert (brightest == split.labels).all()


def test_every_class_gives_its_share(image_splits):
    for split in (image_splits.select, image_splits.calibration):
        found = np.bincount(split.labels, minlength=3) / len(split.labels)
        whole = np.bincount(np.concatenate([s.labels for s in (image_splits.train, split)])) / (
            len(image_splits.train.labels) + len(split.labels)
        )
        assert np.abs(found - whole).max() < 0.06


def test_the_same_config_gives_the_same_bytes(image_data, tmp_path, image_splits_folder):
    open_splits(image_data, tmp_path)
    for path in image_splits_folder.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_an_image_of_test_leaves_the_training_set():
    images = np.arange(6 * 4, dtype=np.uint8).reshape(6, 2, 2, 1)
    labels = np.array([0, 1, 0, 1, 0, 1])
    config = ImageData(calibration=1, select=1)
    found = split_images(config, images, labels, images[2:3], labels[2:3])
    kept = np.concatenate([found[name][0] for name in ("calibration", "select", "train")])
    assert len(kept) == 5
    assert not (kept == images[2]).all((1, 2, 3)).any()


def test_too_few_images():
    images, labels = np.arange(16, dtype=np.uint8).reshape(4, 2, 2, 1), np.zeros(4, np.int64)
    with pytest.raises(
        DataError, match=r"for calibration(.|\n)*next: +data\.select=1 data\.calibration=1, or"
    ):
        split_images(ImageData(calibration=3, select=1), images, labels, images[:1], labels[:1])
    with pytest.raises(DataError, match="too few images for test"):
        split_images(ImageData(calibration=1, select=1, test=9), images, labels, images, labels)


def test_labels_out_of_range(image_data, tmp_path):
    import dataclasses

    with pytest.raises(DataError, match=r"labels without a class\n  found: +\d+ labels, e\.g\. 2"):
        open_splits(dataclasses.replace(image_data, classes=["top", "middle"]), tmp_path)


def test_a_folder_without_a_class(folder, tmp_path):
    """Fewer names than folders: the labels of the last folder have none."""
    sets = {name: ImageSet(source=f"path:{folder}") for name in ("train_set", "test_set")}
    with pytest.raises(DataError, match=r"the training set has labels.*\n  found: +3 labels, e\.g\. 1"):
        open_splits(ImageData(classes=["cat"], calibration=1, select=1, **sets), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_same_classes_in_another_order(folder, tmp_path):
    sets = {name: ImageSet(source=f"path:{folder}") for name in ("train_set", "test_set")}
    with pytest.raises(DataError, match="in another order"):
        open_splits(ImageData(classes=["dog", "cat"], calibration=1, select=1, **sets), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_test_images_of_another_shape(folder, tmp_path):
    pixels = np.zeros((5, 5), np.uint8)
    for name in ("cat", "dog"):
        (tmp_path / "other" / name).mkdir(parents=True)
        (tmp_path / "other" / name / "0.png").write_bytes(png(pixels))
    config = ImageData(
        train_set=ImageSet(source=f"path:{folder}"), test_set=ImageSet(source=f"path:{tmp_path}/other")
    )
    with pytest.raises(DataError, match="another shape"):
        open_splits(config, tmp_path / "out")


def test_a_changed_split_is_refused(image_splits_folder, tmp_path):
    import shutil

    shutil.copytree(image_splits_folder, tmp_path / "copy")
    with np.load(tmp_path / "copy" / "test.npz") as stored:
        images, labels = stored["images"].copy(), stored["labels"]
    images[0, 0, 0, 0] ^= 1
    np.savez(tmp_path / "copy" / "test.npz", images=images, labels=labels)
    with pytest.raises(DataError, match="was changed"):
        load_splits(tmp_path / "copy")


def test_a_shared_image_is_refused(image_splits_folder, tmp_path):
    import shutil

    shutil.copytree(image_splits_folder, tmp_path / "copy")
    with np.load(tmp_path / "copy" / "test.npz") as stored:
        images, labels = stored["images"][:30], stored["labels"][:30]
    np.savez(tmp_path / "copy" / "calibration.npz", images=images, labels=labels)
    manifest = json.loads((tmp_path / "copy" / "manifest.json").read_text())
    manifest["splits"]["calibration"]["fingerprint"] = fingerprint(images, labels)
    (tmp_path / "copy" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="test and calibration share an image"):
        load_images(tmp_path / "copy")


def test_digests_of_both_sets(image_data):
    digests = input_digests(image_data)
    assert set(digests) == {"train_set", "test_set"}


def test_the_config_checks_its_ranges():
    with pytest.raises(ConfigError, match="select"):
        ImageData(select=0)
    for changes in ({"size": -1}, {"crop": 0.0}, {"crop": 1.1}):
        with pytest.raises(ConfigError, match=next(iter(changes))):
            Resize(**changes)
