"""Labelled images out of parquet files as the hub's data sets have them."""

import io
import json

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from compress.config.compose import load_config
from compress.config.data import ImageData, ImageFormat, ImageSet, Resize
from compress.data import open_splits
from compress.data.image_files import read_images
from compress.data.images import load_images
from compress.data.pictures import preparation
from compress.errors import DataError

COMMIT = "531be5e2ccc9dba0c201ad3ae567a4f3d16ecdd2"


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def pictures(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 4, 5)).astype(np.uint8)


def write(path, images, labels, names=("cat", "dog"), image="image", label="label", row_group=2):
    """As `datasets` writes it: structs of bytes and path, names of the classes in the schema's metadata."""
    structs = pa.array(
        [each if each is None else {"bytes": each, "path": None} for each in images],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    features = {image: {"_type": "Image"}, label: {"names": list(names or ()), "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features if names else {}}})}
    table = pa.table({image: structs, label: pa.array(labels, pa.int64())}).replace_schema_metadata(metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path, row_group_size=row_group)
    return path


def read(source, **changes):
    return read_images(
        ImageSet(source=f"path:{source}", format=ImageFormat.parquet, **changes), preparation(None, Resize())
    )


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "set" / "train-0.parquet", map(png, pictures(5)), [0, 1, 1, 0, 1])


def test_images_labels_and_names(file):
    images, labels, names = read(file.parent)
    assert np.array_equal(images[..., 0], pictures(5))
    assert labels.tolist() == [0, 1, 1, 0, 1]
    assert names == ("cat", "dog")
    assert np.array_equal(read(file)[0], images)  # the file itself as the source


def test_parts_in_order_and_only_those_that_fit(file):
    write(file.parent / "train-1.parquet", map(png, pictures(3, 1)), [1, 0, 0])
    write(file.parent / "test-0.parquet", map(png, pictures(2, 2)), [1, 0])
    (file.parent / "train-notes.txt").write_text("")
    images, labels, _ = read(file.parent, images="train-*")
    assert np.array_equal(images[..., 0], np.concatenate([pictures(5), pictures(3, 1)]))
    assert labels.tolist() == [0, 1, 1, 0, 1, 1, 0, 0]


def test_columns_of_other_names_and_plain_bytes(tmp_path):
    table = pa.table({"img": [png(each) for each in pictures(2)], "y": pa.array([3, 4], pa.uint8())})
    parquet.write_table(table, tmp_path / "a.parquet")
    images, labels, names = read(tmp_path, image_column="img", label_column="y")
    assert np.array_equal(images[..., 0], pictures(2))
    assert (labels.tolist(), labels.dtype, names) == ([3, 4], np.int64, ())


def test_the_hub_s_folder_by_the_configuration_of_fashion_mnist(tmp_path, monkeypatch):
    """The layout of the published data set, in the hub's cache, without a network."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    snapshot = tmp_path / "hub" / "datasets--zalando-datasets--fashion_mnist" / "snapshots" / COMMIT
    names = ["T - shirt / top", "Trouser", "Pullover", "Dress", "Coat"]
    names += ["Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
    for name, count in (("train", 60), ("test", 20)):
        images = np.random.default_rng(count).integers(0, 256, (count, 28, 28)).astype(np.uint8)
        path = snapshot / "fashion_mnist" / f"{name}-00000-of-00001.parquet"
        write(path, map(png, images), np.arange(count) % 10, names)
    words = ["experiment=fashion_resnet", "data=fashion_mnist_hub", "data.select=20", "data.calibration=10"]
    config = load_config(words)
    open_splits(config.data, tmp_path / "splits")
    splits = load_images(tmp_path / "splits")
    assert splits.classes[:2] == ("t-shirt", "trouser")
    assert [len(s.labels) for s in (splits.calibration, splits.train, splits.select)] == [10, 30, 20]
    assert np.array_equal(splits.test.images[..., 0], images)


# ---------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image_column": "imgae"}, r"no such column\n  found: +imgae\n.*did you mean 'image'"),
        (
            {"label_column": "labels"},
            r"found: +labels\n.*mean 'label'.*\n.*data\.train_set\.label_column",
        ),
        (
            {"image_column": "label"},
            r"column label of train-0\.parquet holds no encoded images\n  found: +int64",
        ),
        (
            {"label_column": "image"},
            r"column image of train-0\.parquet holds no labels\n  found: +struct",
        ),
        ({"images": "test-*"}, r"no parquet file in .*\n.*'test-\*'"),
    ],
)
def test_a_column_or_a_file_that_is_none(file, changes, said):
    with pytest.raises(DataError, match=said):
        read(file.parent, **changes)


def test_a_row_without_a_label(tmp_path):
    write(tmp_path / "a.parquet", map(png, pictures(4)), [0, 1, None, None])
    with pytest.raises(DataError, match=r"rows without a label\n  found: +2, e\.g\. row 2"):
        read(tmp_path)


def test_a_row_without_an_image(tmp_path):
    write(tmp_path / "a.parquet", [*map(png, pictures(3)), None], [0, 1, 0, 1])
    with pytest.raises(DataError, match=r"row 3 of a\.parquet has no image"):
        read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no image", png(pictures(1)[0])[:-30]])
def test_a_corrupt_image_is_named(tmp_path, content):
    write(tmp_path / "a.parquet", [*map(png, pictures(2)), content], [0, 1, 0])
    with pytest.raises(DataError, match=r"row 2 of a\.parquet is not an image that can be read"):
        read(tmp_path)


def test_labels_out_of_range(tmp_path):
    """-1 is what the hub's data sets say of test images without a label."""
    for name, labels in (("train", [0, 1] * 10), ("test", [0, -1] * 10)):
        write(tmp_path / f"{name}.parquet", map(png, pictures(20, len(name))), labels)
    train, test = (
        ImageSet(source=f"path:{tmp_path}", format=ImageFormat.parquet, images=f"{name}.parquet")
        for name in ("train", "test")
    )
    with pytest.raises(DataError, match=r"the test set has labels.*\n  found: +10 labels, e\.g\. -1"):
        open_splits(ImageData(train_set=train, test_set=test, calibration=2, select=2), tmp_path / "out")


def test_parts_with_other_classes(file):
    write(file.parent / "train-1.parquet", map(png, pictures(2)), [0, 1], names=("cat", "horse"))
    with pytest.raises(DataError, match="different classes"):
        read(file.parent)


@pytest.mark.parametrize("keep", [0, 10, -40, -4])
def test_a_truncated_file(file, keep):
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"train-0\.parquet is damaged or no parquet file"):
        read(file.parent)


def test_pages_that_are_damaged(file):
    """The footer is whole; what it points to is not."""
    data = bytearray(file.read_bytes())
    data[4:400] = b"\xff" * 396
    file.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"train-0\.parquet"):
        read(file.parent)
