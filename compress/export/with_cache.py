"""What a graph with a cache is tried on: windows of text, tokens on both sides of every limit that the
config names, and some between.

In front of a limit lie keys and values as of real text, for torch and ONNX the same: a window of 4,096 tokens
is crossed for the price of 24.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compress.errors import GateError
from compress.graph.decoder import KEEP, Decoder
from compress.graph.session import running
from compress.models.limits import contexts, windows

WINDOWS, TOKENS, STEPS = 4, 128, 8  # STEPS tokens of each window of text go one by one
_AT_ONCE = 16  # tokens in front of the steps, half of them before the limit
_WHOLE = 1024  # tokens of the largest window of attention that real text alone crosses
_CACHE = 2**29  # bytes of the largest cache in front of a limit
Pairs = Iterator[tuple[np.ndarray, np.ndarray]]  # logits (tokens, vocabulary) of torch and of ONNX


class WithCache:
    """`crossed`: limits (tokens) of the config -> whether they were reached, filled while it is run."""

    def __init__(self, model: Any, path: Path, texts: Any) -> None:
        self.model, self.path = model, path
        self.traced = model.traced(texts)
        self.last = int(model.processor.context)  # tokens
        config = model.config.to_dict()
        self.windows = [each for each in windows(config) if each < self.last]
        self.limits = sorted({*self.windows, *contexts(config)})
        self.crossed: dict[int, bool] = {}
        self.texts = model.windows(texts, min(TOKENS, self.last)).numpy()

    def pairs(self) -> Pairs:
        """Raises GateError where inputs or outputs are not the model's, and ModelError."""
        self._check_names(Decoder(self.path, capacity=1, prepack=False))
        for ids in self.texts[:WINDOWS]:
            yield self._whole(ids)
        for window in self.windows:
            if window <= _WHOLE:
                yield self._whole(np.resize(self.texts, min(window + _AT_ONCE + STEPS, self.last)))
        yield from self._batch()
        past = self._past_of_text()
        floats = sum(each[0, :, 0].size for each in past)  # of a token
        for limit in self.limits:
            start = min(limit - _AT_ONCE // 2, self._end() - _AT_ONCE - STEPS)
            self.crossed[limit] = start >= 0 and 4 * floats * start <= _CACHE
            if self.crossed[limit]:
                yield self._across(start, past, STEPS)
        for position in self._between():
            if 4 * floats * position <= _CACHE:
                yield self._across(position, past, 0)

    def _between(self) -> list[int]:
        """Powers of two from 256 on, in front of the last position: a table may be wrong there alone."""
        last = self._end() - _AT_ONCE
        powers = {2**power for power in range(8, last.bit_length()) if 2**power <= last}
        return sorted(powers.difference(self.limits))

    def _end(self) -> int:
        return int(self.model.config.max_position_embeddings)

    def _check_names(self, decoder: Decoder) -> None:
        """A fused graph may count positions by itself, and has all keys before all values."""
        wanted = list(self.traced.input_names), list(self.traced.output_names)
        if decoder.fused and "position_ids" not in decoder.inputs:
            wanted[0].remove("position_ids")
        if decoder.fused:
            for names in wanted:
                names.sort(key=lambda name: name.endswith(".value"))
        outputs = [each.name for each in decoder.session.get_outputs()]
        if (list(decoder.inputs), outputs) != wanted:
            raise GateError(
                "the exported graph has other inputs or outputs than the model",
                found=" -> ".join(map(", ".join, (decoder.inputs, outputs))),
                allowed=" -> ".join(map(", ".join, wanted)),
            )

    def _whole(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of a text (tokens,): the first at once, the last `STEPS` one by one after them."""
        decoder = Decoder(self.path, capacity=len(ids), prepack=False)
        pieces = np.split(ids, range(len(ids) - STEPS, len(ids)))
        [wanted] = self.model.outputs({"input_ids": torch.from_numpy(ids[None])}).values()
        return wanted[0].numpy(), np.concatenate([decoder.run(piece) for piece in pieces if len(piece)])

    def _batch(self) -> Pairs:
        """Two texts at once, the first filled up by 3 tokens: on its left, or where attention and cache are
        one operator, which takes no other, on its right."""
        decoder = Decoder(self.path, capacity=1, prepack=False)
        ids = np.resize(self.texts, (2, min(24, self.last)))
        filled = np.zeros(ids.shape[1], bool)
        filled[slice(-3, None) if decoder.fused else slice(3)] = True
        mask = np.stack([~filled, np.ones_like(filled)]).astype(np.int64)
        feeds = {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clip(0)}
        feeds = {name: each for name, each in feeds.items() if name in decoder.inputs}
        for name in decoder.cached:
            _, heads, _, size = decoder.inputs[name].shape
            feeds[name] = np.zeros((2, heads, 0, size), np.float32)
        if decoder.trims:
            feeds[KEEP] = np.array([ids.shape[1]])
        with running():
            [logits] = decoder.session.run(["logits"], feeds)
        for row, real, found in zip(ids, mask.astype(bool), logits, strict=True):
            [wanted] = self.model.outputs({"input_ids": torch.from_numpy(row[real][None])}).values()
            yield wanted[0].numpy(), found[real]

    def _past_of_text(self) -> list[np.ndarray]:
        """Keys and values (1, heads, tokens, size) of a text, in the order of the graph's inputs."""
        ids = torch.from_numpy(self.texts[:1])
        empty = [tuple(each[:, :, :0] for each in pair) for pair in self.traced.inputs["past"]]
        empty = [tuple(each[:1] for each in pair) for pair in empty]
        _, pairs = self._torch(ids[0], 0, empty)
        return [each.numpy() for pair in pairs for each in pair]

    def _torch(self, ids: torch.Tensor, start: int, past: Any) -> Any:
        """Logits and longer cache of `ids` (tokens,) from position `start` on."""
        positions = torch.arange(start, start + len(ids))[None]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that transformers calls old
            return self.traced.module(
                ids[None], torch.ones((1, start + len(ids)), dtype=torch.int64), positions, past
            )

    def _across(self, start: int, of_text: list[np.ndarray], steps: int) -> tuple[np.ndarray, np.ndarray]:
        """`_AT_ONCE` tokens from position `start` on, and `steps` one by one after them."""
        places = np.arange(start) % of_text[0].shape[2]
        past = [np.ascontiguousarray(each[:, :, places]) for each in of_text]
        end = start + _AT_ONCE + steps
        decoder = Decoder(self.path, capacity=end, prepack=False)
        names = (name for name in self.traced.input_names if name.startswith("past_key_values."))
        decoder.fill(dict(zip(names, past, strict=True)))
        ids = np.resize(self.texts, end - start)
        pairs = list(zip(*(map(torch.from_numpy, past[i::2]) for i in (0, 1)), strict=True))
        wanted, found = [], []
        for piece in np.split(ids, range(_AT_ONCE, len(ids))):
            logits, pairs = self._torch(torch.from_numpy(piece), start, pairs)
            wanted.append(logits[0].numpy())
            found.append(decoder.run(piece))
            start += len(piece)
        return np.concatenate(wanted), np.concatenate(found)
