"""Splits of labelled images that never share an image: calibration, train, select, test.

    calibration.npz train.npz select.npz test.npz
                      images uint8 [n, height, width, channels], labels int64 [n]
    manifest.json     kind, counts, fingerprints, classes, seed

Test is the published test set. Select and calibration are drawn from the training set, the same share of
every class; what is left is train. An image that a former split has, to the last bit, is dropped.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.config.data import ImageData, ImageFormat
from compress.data.class_names import classes_of, output_numbers
from compress.data.image_files import read_images
from compress.data.pictures import preparation
from compress.errors import DataError
from compress.schema.report import Split
from compress.sources import identity

KIND = "images"
_NAMES = ("test", "select", "calibration", "train")  # the order in which they take
Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ImageSplit:
    name: str
    images: Images  # [n, height, width, channels]
    labels: Labels  # [n]
    fingerprint: str
    requested: int | None = None  # null: all there is

    @property
    def examples(self) -> Images:
        return self.images


@dataclass(frozen=True, kw_only=True)
class ImageSplits:
    calibration: ImageSplit
    train: ImageSplit
    select: ImageSplit
    test: ImageSplit
    classes: tuple[str, ...]

    @property
    def test_sets(self) -> dict[str, str]:
        return {"test": self.test.fingerprint}

    def facts(self) -> dict[str, Split]:
        """What the report tells of each split."""
        return {
            split.name: Split(
                examples=len(split.labels), fingerprint=split.fingerprint, requested=split.requested
            )
            for split in (self.calibration, self.train, self.select, self.test)
        }


def open_images(config: ImageData, out: Path, checkpoint: Path | None = None) -> None:
    """Read both sets, split, write into `out`. The same config and checkpoint, the same bytes.

    With the `checkpoint` of a classifier, images are resized and cropped as it wants them where
    `config.resize` says nothing, and labels are numbers of its outputs.

    Raises SourceError and DataError; the latter also for images of different shapes, labels without a
    class, classes that the model does not name, and where there is less than was asked for.
    """
    prepare = preparation(checkpoint, config.resize)
    images, labels, names = read_images(config.train_set, prepare)
    tested, tested_labels, tested_names = read_images(config.test_set, prepare)
    if names != tested_names:
        raise DataError(
            "the test set has other classes than the training set",
            found=", ".join(tested_names) or "none",
            allowed=", ".join(names) or "none",
        )
    if checkpoint is None:
        called = classes = _own_classes(config, names, labels)
        numbers = list(range(len(classes)))
    else:
        ranked = config.train_set.format is ImageFormat.folder
        numbers, classes = output_numbers(names, classes_of(checkpoint), config.classes, ranked)
        called = names or tuple(config.classes) or classes
    for found, which in ((labels, "training"), (tested_labels, "test")):
        check_labels(found, called, which)
    labels, tested_labels = (np.array(numbers, np.int64)[found] for found in (labels, tested_labels))
    if images.shape[1:] != tested.shape[1:]:
        raise DataError(
            "the images of the test set have another shape than those of the training set",
            found=_shape(tested),
            allowed=_shape(images),
        )
    chosen = split_images(config, images, labels, tested, tested_labels)
    out.mkdir(parents=True, exist_ok=True)
    splits = {}
    for name in _NAMES:
        part, of_part = chosen[name]
        np.savez(out / f"{name}.npz", images=part, labels=of_part)
        splits[name] = {
            "requested": getattr(config, name) or None,
            "examples": len(of_part),
            "per_class": np.bincount(of_part, minlength=len(classes)).tolist(),
            "fingerprint": fingerprint(part, of_part),
        }
    manifest = {"kind": KIND, "version": 1, "seed": config.seed, "classes": classes, "splits": splits}
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", "utf-8")
    load_images(out)


def _own_classes(config: ImageData, names: tuple[str, ...], labels: Labels) -> tuple[str, ...]:
    """Names by label, of data that no model has to know."""
    classes = tuple(config.classes) or names or tuple(map(str, range(int(labels.max()) + 1)))
    if classes != names and set(classes) == set(names):
        raise DataError(
            "data.classes has the files' own names in another order, which would relabel the images",
            found=", ".join(classes),
            allowed=", ".join(names),
            next="leave data.classes empty",
        )
    return classes


def input_digests(config: ImageData) -> dict[str, str]:
    """Name -> identity of both sets; what is pinned is not downloaded for it."""
    sets = {"train_set": config.train_set, "test_set": config.test_set}
    return {name: identity(images.source, images.sha256) for name, images in sets.items()}


def check_labels(labels: Labels, classes: tuple[str, ...], which: str) -> None:
    bad = labels[(labels < 0) | (labels >= len(classes))]
    if len(bad):
        raise DataError(
            f"the {which} set has labels without a class",
            found=f"{len(bad)} labels, e.g. {int(bad[0])}",
            allowed=f"0 to {len(classes) - 1}: {', '.join(classes)}",
        )


def split_images(
    config: ImageData, images: Images, labels: Labels, tested: Images, tested_labels: Labels
) -> dict[str, tuple[Images, Labels]]:
    """Name -> images and labels. Every class gives the same share to select and calibration."""
    chosen = {"test": _first(config.test, tested, tested_labels, "test")}
    taken = set(_keys(chosen["test"][0]))
    order = []
    for index in np.random.default_rng(config.seed).permutation(len(labels)):
        key = _key(images[index])
        if key not in taken:  # also of two equal images of the training set only one stays
            taken.add(key)
            order.append(int(index))
    left = np.array(order, np.int64)
    for name in ("select", "calibration"):
        picked = _stratified(labels[left], getattr(config, name), name, len(order))
        rows = left[picked]
        chosen[name] = (images[rows], labels[rows])
        left = np.delete(left, picked)
    chosen["train"] = _first(config.train, images[left], labels[left], "train")
    return chosen


def _first(count: int, images: Images, labels: Labels, name: str) -> tuple[Images, Labels]:
    if count > len(labels):
        raise DataError(f"too few images for {name}", found=len(labels), allowed=f"data.{name}={count}")
    return (images[:count], labels[:count]) if count else (images, labels)


def _stratified(labels: Labels, count: int, name: str, given: int) -> NDArray[np.int64]:
    """Positions of `count` examples, of every class its share (largest remainders). `given`: images that all
    splits but test are cut from."""
    if count >= len(labels):
        fewer = f"data.select={given // 3} data.calibration={given // 10 or 1}, or more images"
        raise DataError(
            f"too few images for {name}",
            found=f"{len(labels)} left",
            allowed=f"more than data.{name}={count}",
            next=fewer if given > 2 else "take more images, unlike each other and those of the test set",
        )
    classes, sizes = np.unique(labels, return_counts=True)
    exact = sizes * count / len(labels)
    shares = np.floor(exact).astype(int)
    shares[np.argsort(shares - exact, kind="stable")[: count - shares.sum()]] += 1
    picked = [np.flatnonzero(labels == c)[:share] for c, share in zip(classes, shares, strict=True)]
    return np.sort(np.concatenate(picked))


def _key(image: Images) -> bytes:
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()


def _keys(images: Images) -> Iterator[bytes]:
    return map(_key, images)


def _shape(images: Images) -> str:
    return " x ".join(map(str, images.shape[1:]))


def fingerprint(images: Images, labels: Labels) -> str:
    digest = hashlib.sha256(json.dumps([images.shape, str(images.dtype)]).encode())
    digest.update(np.ascontiguousarray(images).tobytes())
    digest.update(labels.astype("<i8").tobytes())
    return digest.hexdigest()


def load_images(folder: Path) -> ImageSplits:
    """Read what `open_images` wrote. Raises DataError when it was changed or two splits share an image."""
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text("utf-8"))
        parts = {name: _load(folder, name, manifest["splits"][name]) for name in _NAMES}
        classes = tuple(manifest["classes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"cannot read the splits in {folder}", found=error, next="delete the folder and run again"
        ) from None
    owners: dict[bytes, str] = {}
    for name in _NAMES:
        for key in _keys(parts[name].images):
            if (owner := owners.setdefault(key, name)) != name:
                raise DataError(
                    f"the splits {owner} and {name} share an image", next="delete the splits and run again"
                )
    return ImageSplits(**parts, classes=classes)


def _load(folder: Path, name: str, counts: dict[str, Any]) -> ImageSplit:
    path = folder / f"{name}.npz"
    with np.load(path, allow_pickle=False) as stored:
        images, labels = stored["images"], stored["labels"]
    found = fingerprint(images, labels)
    if found != counts["fingerprint"]:
        raise DataError(
            f"{path} was changed after it was written",
            found=found,
            allowed=counts["fingerprint"],
            next="delete its folder and run again",
        )
    return ImageSplit(
        name=name, images=images, labels=labels, fingerprint=found, requested=counts["requested"]
    )
