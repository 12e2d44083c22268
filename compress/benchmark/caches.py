"""How a language model is timed: which of its inputs and outputs share memory, what a call counts for."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx

from compress.graph import onnx_files

PAST, PRESENT = "past_key_values.", "present."
BLOCK = 64  # capacities are multiples of it
Feeds = Mapping[str, np.ndarray]


def shared_cache(model: Path) -> dict[str, str]:
    """Input -> output of a cache that GroupQueryAttention extends in place, in an ONNX file or a variant's
    folder; empty for any other graph.

    Graphs of plain operators hand back a new, longer cache: theirs is copied at every token.
    """
    return {past: present for path in onnx_files(model) for past, present in _shared_cache(path).items()}


def _shared_cache(path: Path) -> dict[str, str]:
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception:  # protobuf's own: onnxruntime says what is wrong with the file when it loads it
        return {}
    if not any(node.op_type == "GroupQueryAttention" for node in graph.node):
        return {}
    outputs = {output.name for output in graph.output}
    pairs = {each.name: each.name.replace(PAST, PRESENT, 1) for each in graph.input}
    return {past: present for past, present in pairs.items() if past != present and present in outputs}


def is_language_model(feeds: Iterable[str]) -> bool:
    """By the names of its inputs."""
    return any(name.startswith(PAST) for name in feeds)


def capacity(feeds: Feeds) -> int:
    """Tokens that a cache must hold for these inputs, rounded up."""
    old = max((array.shape[2] for name, array in feeds.items() if name.startswith(PAST)), default=0)
    tokens: int = old + feeds["input_ids"].shape[1]
    return -(-tokens // BLOCK) * BLOCK


def capacities(inputs: Mapping[str, Feeds]) -> dict[str, int]:
    """Workload -> tokens that its cache must hold; only those of language models."""
    return {name: capacity(feeds) for name, feeds in inputs.items() if is_language_model(feeds)}


def scores(inputs: Mapping[str, Feeds]) -> dict[str, int]:
    """Workload -> how much of its cache its tokens look at, in a head; only those of language models."""
    return {name: inputs[name]["input_ids"].size * tokens for name, tokens in capacities(inputs).items()}


def items(feeds: Feeds) -> int:
    """What one call gets done: the tokens of a language model, else examples."""
    if is_language_model(feeds):
        return int(feeds["input_ids"].size)
    return len(next(iter(feeds.values())))
