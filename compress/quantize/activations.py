"""What flows through an ONNX graph on calibration examples."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnxruntime import InferenceSession

from compress.data import load_splits
from compress.graph.session import Runtime, open_session
from compress.graph.surgery import fetching, producers
from compress.tasks import open_processor

Feeds = Sequence[Mapping[str, np.ndarray]]  # name of a graph's input -> array, one dict an example
EXAMPLES = 64  # of the calibration split, for means and maxima of activations


def calibration_feeds(checkpoint: Path, splits: Path, count: int) -> list[dict[str, np.ndarray]]:
    """The first `count` examples of the calibration split, one a feed: padding would enter the statistics.

    Name -> array with a first axis of 1; texts from the shortest to the longest.
    """
    return list(open_processor(checkpoint).batches(load_splits(splits).calibration.examples[:count], 1))


def collect(
    model: onnx.ModelProto | Path, tensors: Sequence[str], feeds: Iterable[Mapping[str, np.ndarray]]
) -> Iterator[dict[str, np.ndarray]]:
    """Values of these tensors of the graph, by name, one dict a feed; the model itself stays as it was.

    What is fetched is an output, so onnxruntime's optimizations keep it and compute the rest as they
    will when the model ships. Raises ValueError for a tensor that no node makes.
    """
    session = _session(model, tensors)
    inputs = {value.name for value in session.get_inputs()}  # fused attention takes no positions
    for feed in feeds:
        values = session.run(list(tensors), {name: feed[name] for name in inputs})
        yield dict(zip(tensors, values, strict=True))


def _session(model: onnx.ModelProto | Path, tensors: Sequence[str]) -> InferenceSession:
    source = onnx.load(model) if isinstance(model, Path) else model
    if missing := sorted(set(tensors) - producers(source.graph.node).keys()):
        raise ValueError(f"no node makes {', '.join(missing)}")
    # one thread: the same numbers on every machine, and no spinning beside others
    return open_session(fetching(source, tensors), Runtime(threads=1))
