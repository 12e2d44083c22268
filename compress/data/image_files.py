"""Labelled images out of files: idx (MNIST and its kin), a folder a class, or parquet."""

import gzip
import io
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from compress.config.data import ImageFormat, ImageSet
from compress.data.parquet import read_parquet
from compress.data.pictures import Prepare
from compress.errors import DataError
from compress.sources import fetch

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Read = tuple[Images, Labels, tuple[str, ...]]
_USUAL = (".png", ".jpg", ".webp", ".bmp", ".gif", ".tif", ".ppm")
_PROGRAM = "EPS"  # Pillow hands it to Ghostscript, which runs what is in the file
_MAX_PIXELS = 50_000_000  # of one image: more is a decompression bomb or not for a classifier


def read_images(config: ImageSet, prepare: Prepare) -> Read:
    """images [n, height, width, channels], labels [n] and the names of the classes where the files tell.

    Raises SourceError where there are no files, DataError where one cannot be read or has another shape.
    """
    folder = fetch(config.source, config.sha256)
    images, labels, names = _READERS[config.format](folder, config, prepare)
    if len(images) != len(labels):
        raise DataError(
            "there are not as many labels as images", found=f"{len(images)} images, {len(labels)} labels"
        )
    if not len(images):
        raise DataError(f"no images in {folder}")
    return images, labels, names


def _idx(folder: Path, config: ImageSet, prepare: Prepare) -> Read:
    images = read_idx(_one(folder, config.images, "images"))
    labels = read_idx(_one(folder, config.labels, "labels"))
    if images.ndim not in (3, 4) or labels.ndim != 1:
        raise DataError(
            "the idx files are not images and labels",
            found=f"{images.ndim} and {labels.ndim} axes",
            allowed="3 or 4 and 1",
            next="swap images and labels, or name other files",
        )
    if images.shape[3:] == (1,):
        images = images[..., 0]
    named = ((f"image {number}", partial(Image.fromarray, image)) for number, image in enumerate(images))
    return _stack(named, prepare), labels.astype(np.int64), ()


def read_idx(path: Path) -> NDArray[np.uint8]:
    """An idx file of unsigned bytes (LeCun's format), plain or gzip."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, gzip.zlib.error) as error:  # type: ignore[attr-defined]
        raise DataError(f"{path.name} is damaged", found=error, next="fetch it again") from None
    axes = data[3] if len(data) > 4 else 0
    if data[:3] != b"\0\0\x08" or not axes or len(data) < 4 + 4 * axes:
        raise DataError(
            f"{path.name} is no idx file of unsigned bytes", found=data[:4].hex(" "), allowed="00 00 08 axes"
        )
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", axes, 4))
    if len(data) != 4 + 4 * axes + int(np.prod(shape, dtype=np.int64)):
        raise DataError(
            f"{path.name} is damaged: its length does not fit its shape",
            found=f"{len(data)} bytes for {' x '.join(map(str, shape))}",
            next="fetch it again",
        )
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _folder(folder: Path, config: ImageSet, prepare: Prepare) -> Read:
    inside = folder.iterdir() if folder.is_dir() else ()
    names = tuple(sorted(path.name for path in inside if path.is_dir() and not _hidden(path, folder)))
    if not names:
        raise DataError(f"{folder} holds no folder a class", allowed="CLASS/IMAGE.png, or another format")
    Image.init()
    suffixes = {suffix for suffix, name in Image.registered_extensions().items() if name in Image.OPEN}
    files = []
    for label, name in enumerate(names):
        fitting = {path for each in _with_linked(folder / name) for path in each.glob(config.images)}
        pictures = [path for path in sorted(fitting) if path.suffix.lower() in suffixes]
        files += (of_class := [(path, label) for path in pictures if not _hidden(path, folder)])
        if not of_class:
            raise DataError(
                f"no picture in the folder of the class {name}",
                found=f"nothing that fits {config.images!r} in {folder / name}",
                allowed=f"files of Pillow's suffixes: {', '.join(_USUAL)} and others",
                next=f"put its pictures there, or take the folder {name} away",
            )
    images = _stack(((path.name, partial(_open, path)) for path, _ in files), prepare)
    return images, np.array([label for _, label in files], np.int64), names


def _with_linked(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """The folder and all within, linked ones too, as torchvision's ImageFolder walks them; one that is linked
    within itself ends there."""
    real = folder.resolve()
    if real not in above:
        yield folder
        for each in folder.iterdir():
            if each.is_dir():
                yield from _with_linked(each, above | {real})


def _parquet(folder: Path, config: ImageSet, prepare: Prepare) -> Read:
    files = [folder] if folder.is_file() else sorted(folder.glob(config.images))
    files = [path for path in files if path.suffix == ".parquet" and not path.name.startswith(".")]
    if not files:
        raise DataError(f"no parquet file in {folder}", found=f"none that fits {config.images!r}")
    encoded, labels, names = read_parquet(files, config.image_column, config.label_column)
    images = _stack(((name, partial(_open, io.BytesIO(data))) for name, data in encoded), prepare)
    return images, labels, names


def _hidden(path: Path, folder: Path) -> bool:
    """What notebooks (.ipynb_checkpoints) and macOS (__MACOSX, ._name) leave beside images."""
    return any(part.startswith((".", "__MACOSX")) for part in path.relative_to(folder).parts)


def _open(file: Path | io.BytesIO) -> Image.Image:
    Image.init()
    image = Image.open(file, formats=[name for name in Image.OPEN if name != _PROGRAM])
    if image.width * image.height > _MAX_PIXELS:
        raise ValueError(f"too large: {image.width} x {image.height}")
    return image


def _stack(files: Iterable[tuple[str, Callable[[], Image.Image]]], prepare: Prepare) -> Images:
    """Pixels of all images, which must be of one shape: grey where all are grey, else RGB."""
    decoded = []
    for name, opened in files:
        try:
            with opened() as image:
                decoded.append((name, prepare(image)))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(f"{name} is not an image that can be read", found=error) from None
    if any(pixels.shape[2] == 3 for _, pixels in decoded):
        decoded = [(name, np.broadcast_to(pixels, (*pixels.shape[:2], 3))) for name, pixels in decoded]
    shapes = {image.shape[:2]: name for name, image in decoded}
    if len(shapes) > 1:
        found = ", ".join(f"{name}: {height} x {width}" for (height, width), name in list(shapes.items())[:3])
        raise DataError(
            "the images differ in size, and the model's preprocessing does not resize them",
            found=found,
            next="resize them as those that the model was trained on: data.resize.size=...",
        )
    return np.stack([pixels for _, pixels in decoded]) if decoded else np.empty((0, 0, 0, 1), np.uint8)


def _one(folder: Path, pattern: str, what: str) -> Path:
    found = [folder] if folder.is_file() else sorted(folder.glob(pattern))
    if len(found) != 1:
        raise DataError(
            f"not one file of {what}",
            found=", ".join(path.name for path in found) or f"none that fits {pattern!r} in {folder}",
            allowed="a name pattern that fits one file",
        )
    return found[0]


_READERS = {ImageFormat.idx: _idx, ImageFormat.folder: _folder, ImageFormat.parquet: _parquet}
