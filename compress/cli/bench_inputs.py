"""The models of `compress bench`, and arrays made up from what their graphs declare."""

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from compress.errors import BenchmarkError, ConfigError, did_you_mean
from compress.graph import graph_path, onnx_files
from compress.graph.untrusted import Graph, Input, trial
from compress.schema.workload import Workload

MAX_FEED_BYTES = 10**9
Feeds = dict[str, np.ndarray]


def find_models(words: Sequence[str]) -> dict[str, Path]:
    """Short, different names -> files; a folder stands for the graph in it."""
    paths = [_graph(Path(word)) for word in words]
    for word in words:
        if Path(word).suffix in (".pt", ".pth", ".bin", ".safetensors", ".gguf", ".tflite"):
            raise BenchmarkError("not an ONNX file", found=word, next="compress run exports a checkpoint")
    names = _told_apart(words)
    numbers = [names[:i].count(name) + 1 for i, name in enumerate(names)]
    return {
        name if number == 1 else f"{name} ({number})": path
        for name, number, path in zip(names, numbers, paths, strict=True)
    }


def _told_apart(words: Sequence[str]) -> list[str]:
    """As few of the last parts of the paths as tell them apart, whole words where those of none do."""
    parts = [Path(word).parts for word in words]
    for count in range(1, max(map(len, parts), default=0)):
        short = ["/".join(each[-count:]) or word for each, word in zip(parts, words, strict=True)]
        if len(set(short)) == len(set(words)):
            return short
    return list(words)


def _graph(path: Path) -> Path:
    graphs = [graph_path(path)] if graph_path(path).is_file() else onnx_files(path)
    if len(graphs) > 1:
        raise BenchmarkError("a folder of several graphs", found=path, allowed=", ".join(map(str, graphs)))
    if not graphs or not graphs[0].is_file():
        raise BenchmarkError("no such ONNX file", found=path, allowed="a file, or a folder with one in it")
    return graphs[0]


def common_inputs(graphs: Mapping[str, Graph]) -> dict[str, Input]:
    """All inputs of all models by name; those of one name must agree, so that one array fits them all.

    The vocabulary is the smallest one. Raises BenchmarkError naming the input and both models.
    """
    owners: dict[str, str] = {}
    merged: dict[str, Input] = {}
    for model, graph in graphs.items():
        for tensor in graph.inputs:
            if tensor.dtype is None or tensor.name in ("", "file"):  # np.savez keeps "file" for itself
                raise BenchmarkError(
                    f"{model}: no array can be made for the input {tensor.name!r}",
                    found=f"type {tensor.dtype or 'unknown to numpy'}",
                    allowed="a tensor of floats, integers or booleans, not called 'file'",
                )
            if tensor.name not in merged:
                owners[tensor.name], merged[tensor.name] = model, tensor
                continue
            other = merged[tensor.name]
            shape = _merge(other.shape, tensor.shape)
            if shape is None or other.dtype != tensor.dtype:
                raise BenchmarkError(
                    f"input {tensor.name} is not the same in {owners[tensor.name]} and {model}",
                    found=f"{other.dtype} {list(other.shape)} and {tensor.dtype} {list(tensor.shape)}",
                    next="time them one by one, or export them alike",
                )
            known = [rows for rows in (other.vocabulary, tensor.vocabulary) if rows is not None]
            merged[tensor.name] = replace(other, shape=shape, vocabulary=min(known, default=None))
    return merged


def _merge(left: tuple[int | str, ...], right: tuple[int | str, ...]) -> tuple[int | str, ...] | None:
    """A shape that fits both: a fixed size beats an open one; None where two fixed ones differ."""
    if len(left) != len(right):
        return None
    pairs = list(zip(left, right, strict=True))
    if any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs):
        return None
    return tuple(b if isinstance(a, str) else a for a, b in pairs)


def make_workloads(
    inputs: Sequence[Input], asked: Sequence[str], dims: Mapping[str, int], given: Mapping[str, np.ndarray]
) -> dict[str, Feeds]:
    """Feeds of every workload, named by what they are (8x128, or 8 without text); equal ones once."""
    workloads: dict[str, Feeds] = {}
    for wanted in map(Workload.parse, asked):
        if not any(_is_cache(tensor) for tensor in inputs):
            wanted = replace(wanted, past=0)
        for tensor in inputs:
            array = given.get(tensor.name)
            if array is not None and array.ndim == 2 and _is_text(tensor) and not _is_mask(tensor):
                wanted = replace(wanted, batch=array.shape[0], size=array.shape[1])
        bound = _bind(inputs, wanted, dims, given)
        feeds = dict(given)
        for tensor in inputs:
            if tensor.name not in given:
                feeds[tensor.name] = _array(tensor, _shape(tensor, wanted, bound))
        feeds = {tensor.name: feeds[tensor.name] for tensor in inputs}
        # the first axis of the first array is the batch
        feeds = dict(sorted(feeds.items(), key=lambda item: item[1].ndim == 0))
        first = next(iter(feeds.values()), None)
        if first is None or first.ndim == 0:
            raise BenchmarkError(
                "these models have no input with a batch", found=", ".join(feeds) or "no inputs"
            )
        text = next((a for a in feeds.values() if a.ndim == 2 and a.dtype.kind in "iu"), None)
        sized = next((wanted.size for tensor in inputs if _sides(tensor) and tensor.name not in given), None)
        sized = sized if text is None else text.shape[1]
        name = len(first) if sized is None else Workload(len(first), sized, wanted.past)
        workloads.setdefault(str(name), feeds)
    return workloads


def _is_text(tensor: Input) -> bool:
    return len(tensor.shape) == 2 and np.dtype(tensor.dtype).kind in "iu"


def _is_mask(tensor: Input) -> bool:
    return "mask" in tensor.name.lower()


def _sides(tensor: Input) -> tuple[int, int] | None:
    """The axes of height and width of an image, where both are open; the channels lie before or behind."""
    if len(tensor.shape) != 4 or _is_cache(tensor):
        return None
    open_axes = tuple(axis for axis in (1, 2, 3) if isinstance(tensor.shape[axis], str))
    return {(1, 2): (1, 2), (2, 3): (2, 3), (1, 2, 3): (2, 3)}.get(open_axes)


def _is_cache(tensor: Input) -> bool:
    """Keys or values of a language model: (batch, heads, cached tokens, size)."""
    return tensor.name.startswith("past_key_values.") and len(tensor.shape) == 4


def _sizes(tensor: Input, workload: Workload) -> tuple[int, ...]:
    """What the open dimensions of an input stand for, in order; a mask also covers what is cached, and an
    image has as many pixels a side as a text would have tokens."""
    batch, tokens = workload.batch, workload.size
    if _is_text(tensor):
        return batch, tokens + workload.past if _is_mask(tensor) else tokens
    if _is_cache(tensor):
        return batch, 1, workload.past, 1
    sides = _sides(tensor) or ()
    of_image = [tokens if axis in sides else tensor.channels or 1 for axis in range(1, 4)] if sides else ()
    return (batch, *(of_image or [1] * len(tensor.shape)))


def _bind(
    inputs: Sequence[Input], workload: Workload, dims: Mapping[str, int], given: Mapping[str, np.ndarray]
) -> dict[str, int]:
    """Named dimensions: the user's word, else those of a real input, else what rank-2 integer inputs and
    caches make them. Raises ConfigError for a word that is no dimension."""
    names = {dim for tensor in inputs for dim in tensor.shape if isinstance(dim, str)}
    if unknown := set(dims) - names:
        raise ConfigError(
            "no input has this dimension", found=min(unknown), allowed=did_you_mean(min(unknown), names)
        )
    bound: dict[str, int] = {}
    for tensor in inputs:
        if tensor.name in given:
            sizes = zip(tensor.shape, given[tensor.name].shape, strict=False)
            bound |= {dim: size for dim, size in sizes if isinstance(dim, str) and dim}
    for tensor in inputs:
        if tensor.name not in given and (_is_text(tensor) or _is_cache(tensor)):
            for dim, size in zip(tensor.shape, _sizes(tensor, workload), strict=True):
                if isinstance(dim, str) and dim:
                    bound.setdefault(dim, size)
    return {**bound, **dims}


def _shape(tensor: Input, workload: Workload, bound: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(
        dim if isinstance(dim, int) else bound.get(dim, size)
        for dim, size in zip(tensor.shape, _sizes(tensor, workload), strict=False)
    )


def _array(tensor: Input, shape: tuple[int, ...]) -> np.ndarray:
    """Ones for a mask, indices below the vocabulary, else a standard normal; the same for the same name."""
    dtype = np.dtype(tensor.dtype)
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > MAX_FEED_BYTES:
        raise BenchmarkError(
            f"an array for the input {tensor.name} cannot be made",
            found=f"shape {list(shape)}",
            allowed=f"at most {MAX_FEED_BYTES / 1e9:.0f} GB",
        )
    random = np.random.default_rng(zlib.crc32(tensor.name.encode()))
    if dtype.kind == "b" or _is_mask(tensor):
        return np.ones(shape, dtype)
    if dtype.kind == "f":
        return random.standard_normal(shape).astype(dtype)
    return random.integers(0, max(1, tensor.vocabulary or 2), shape).astype(dtype)


def arrays_of(words: Sequence[str]) -> Feeds:
    arrays = {}
    for name, value in _pairs("--input", words, "name=file.npy").items():
        try:
            arrays[name] = np.load(value, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ConfigError(f"cannot read the input {name}", found=f"{value}: {error}") from None
        if not isinstance(arrays[name], np.ndarray):
            raise ConfigError(f"cannot read the input {name}", found=value, allowed="an .npy with one array")
    return arrays


def numbers_of(words: Sequence[str]) -> dict[str, int]:
    pairs = _pairs("--dim", words, "name=number")
    for name, value in pairs.items():
        if not value.isdecimal():
            raise ConfigError(f"--dim {name} is no number", found=value, allowed="0, 1, 2, ...")
    return {name: int(value) for name, value in pairs.items()}


def _pairs(flag: str, words: Sequence[str], form: str) -> dict[str, str]:
    for word in words:
        if not all(word.partition("=")[::2]):
            raise ConfigError(f"cannot read {flag}", found=word, allowed=f"{flag} {form}")
    return dict(word.split("=", 1) for word in words)


def try_once(model: Path, feeds: Feeds, scratch: Path, made_up: Sequence[Input]) -> None:
    """One run within limits, before any that is timed."""
    np.savez(scratch, **{f"in.{name}": array for name, array in feeds.items()})  # type: ignore[arg-type]
    try:
        outputs = trial(model, scratch, BenchmarkError)
    except BenchmarkError as error:
        guessed = [
            f"--dim {dim}={size}"
            for tensor in made_up
            for dim, size in zip(tensor.shape, feeds[tensor.name].shape, strict=True)
            if isinstance(dim, str) and dim
        ]
        if not guessed:
            raise
        words = " ".join(dict.fromkeys(guessed))
        raise BenchmarkError(str(error), next=f"name the sizes of open dimensions, not {words}") from None
    for output in outputs:
        if output.has_nan:
            raise BenchmarkError(
                f"{model.name} computes NaN",
                found=f"in its output {output.name}, from made-up inputs",
                next="give it real ones: --input name=file.npy",
            )
