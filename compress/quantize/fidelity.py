"""How far a quantized language model is from its float graph, in nats a token."""

import logging
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div

from compress.data import Splits
from compress.errors import GateError
from compress.graph.decoder import Decoder
from compress.stages.result import gate, write_result
from compress.system.memory import give_back
from compress.tasks.language_modeling.model import CausalLM

log = logging.getLogger(__name__)
EVERY = 4  # tokens of which what the head makes is compared: its outputs are tens of thousands each
WINDOWS = 4  # of the select split, for the gate and for the choice of the level
# Float activations, slow, are taken where 8-bit ones cost more than a tenth of the divergence, and this much
# of it: about 2 % of perplexity.
_HARM, _LEAST = 1.1, 0.02


def windows_of(model: CausalLM, texts: Sequence[str], count: int) -> Tensor:
    """The first `count` windows (windows, tokens) of the texts."""
    return torch.cat([feeds["input_ids"] for feeds in islice(model.batches(texts, 1), count)])


def check_windows(model: CausalLM, splits: Splits) -> Tensor:
    return windows_of(model, splits.select.texts or splits.calibration.texts, WINDOWS)


def divergence(dense: Path, others: Sequence[Path], windows: Tensor) -> list[float]:
    """Mean KL(dense || other) of each, over all tokens.

    One model after another: what the dense one gives waits on the disk, not to hold two in memory.
    """
    with TemporaryDirectory() as folder:
        for number, expected in enumerate(_log_probabilities(dense, windows, prepack=False)):
            np.save(f"{folder}/{number}.npy", expected)
        divergences = []
        for other in others:
            total = 0.0
            for number, q in enumerate(_log_probabilities(other, windows)):
                p = torch.from_numpy(np.load(f"{folder}/{number}.npy"))
                total += float(kl_div(torch.from_numpy(q), p, reduction="sum", log_target=True))
            divergences.append(total / windows.numel())
        return divergences


def _log_probabilities(path: Path, windows: Tensor, prepack: bool = True) -> Iterator[np.ndarray]:
    """Of every next token (tokens, vocabulary), window by window; `prepack` as `Decoder` has it."""
    decoder = Decoder(path, capacity=windows.shape[1], prepack=prepack)
    for window in windows.numpy():
        decoder.reset()
        yield torch.log_softmax(torch.from_numpy(decoder.run(window)).float(), -1).numpy()
    del decoder
    give_back()


def head_divergence(head: nn.Linear, low_head: Tensor, final: Tensor, low_final: Tensor) -> float:
    """KL in nats a token of what the head makes of two hidden states (windows, tokens, width), with its own
    weight and with `low_head`; window by window, for logits of all would not fit, and of every fourth token,
    for the head of a small model is as much work as ten of its layers."""
    final, low_final, low_head = final[:, ::EVERY], low_final[:, ::EVERY], low_head.float()
    total = 0.0
    for x, y in zip(final, low_final, strict=True):
        p, q = head(x).log_softmax(-1), nn.functional.linear(y, low_head, head.bias).log_softmax(-1)
        total += float((p.exp() * (p - q)).sum())
    return max(0.0, total / (final.shape[0] * final.shape[1]))


def choose_level(dense: Path, path: Path, windows: Tensor, level: int) -> dict[str, Any]:
    """Keep the products' `accuracy_level` at `path`, or make it 0 where it harms; what was measured.

    8-bit activations have a scale for each block of a token, which a model with huge single activations
    may not bear.
    """
    if level == 0:
        return {"accuracy_level": 0, "kl": divergence(dense, [path], windows)[0]}
    exact = path.with_name("exact.onnx")  # beside external data, which both read
    _with_level(path, exact, 0)
    kl, kl_float = divergence(dense, [path, exact], windows)
    exact.unlink()
    harms = not kl <= max(_HARM * kl_float, kl_float + _LEAST)
    if harms:
        log.warning("8-bit activations cost too much (KL %.4f, in float %.4f): taking float", kl, kl_float)
        _with_level(path, path, 0)
    return {
        "accuracy_level": 0 if harms else level,
        "kl": kl_float if harms else kl,
        "kl_of_level": kl,
        "kl_of_float_activations": kl_float,
    }


def check_divergence(kl: float, limit: float | None, out: Path) -> None:
    """Note the divergence, in nats a token, in `out/stage.json`; raise GateError above the limit."""
    limits = {} if limit is None else {"limit": limit}
    write_result(out, gates=[gate("answers near those of the float model", kl=kl, **limits)])
    if limit is not None and not kl <= limit:
        raise GateError(
            "the quantized model is too far from the float model",
            found=f"{kl:.3f} nats a token",
            allowed=f"at most {limit:g} (quantize.max_kl)",
            next="a smaller quantize.block_size, more bits (quantize=int8_blocks), or quantize.exclude",
        )


def _with_level(source: Path, target: Path, level: int) -> None:
    """Weights in external data stay in their file, beside both."""
    model = onnx.load(source, load_external_data=False)
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "MatMulNBits" and attribute.name == "accuracy_level":
                attribute.i = level
    onnx.save(model, target)
