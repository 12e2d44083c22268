"""An ONNX language model with its cache of keys and values: numpy in, numpy out.

A fused graph (GroupQueryAttention) writes new keys and values into the buffers that it reads the old
ones from: both are bound to the same memory, or every token would copy the whole cache. A graph of
plain operators hands back a longer cache each time.
"""

from pathlib import Path

import numpy as np
import onnx

from compress.errors import ModelError
from compress.graph.session import Runtime, open_session, running
from compress.graph.weights import FLOATS
from compress.runner.attention import choose_attention

Array = np.ndarray
KEEP = "num_logits_to_keep"  # an input of ours that may be left out: of how many last tokens logits are made


class Decoder:
    def __init__(
        self,
        path: Path,
        threads: int = 0,
        capacity: int = 2048,
        prepack: bool = True,
        at_once: int | None = None,
    ) -> None:
        """Open `path`; `capacity`: tokens that the cache of a fused graph holds; without `prepack` float
        weights are in memory once, those that are narrower not at all, and multiplied more slowly. `at_once`:
        tokens that a call has at most, where they are fewer.

        Raises ModelError for a graph without logits or cache.
        """
        graph = onnx.load(path, load_external_data=False).graph
        self.fused = any(node.op_type == "GroupQueryAttention" for node in graph.node)
        choose_attention(min(at_once or capacity, capacity) * capacity)
        narrow = any(tensor.data_type in FLOATS[1:] for tensor in graph.initializer)
        runtime = Runtime(threads=threads, prepack=prepack, fold=prepack or not narrow)
        self.session = open_session(path, runtime)
        self.inputs = {each.name: each for each in self.session.get_inputs()}
        outputs = [each.name for each in self.session.get_outputs()]
        self.cached = [name for name in self.inputs if name.startswith("past_key_values.")]
        self.present = [name.replace("past_key_values", "present") for name in self.cached]
        if "input_ids" not in self.inputs or not self.cached or {"logits", *self.present} - set(outputs):
            raise ModelError(
                f"{path.name} is no language model with a cache",
                found=f"{', '.join(list(self.inputs)[:4])} -> {', '.join(outputs[:4])}",
                allowed="input_ids, attention_mask, past_key_values.* -> logits, present.*",
            )
        self.trims = any(each.name == KEEP for each in self.session.get_overridable_initializers())
        self.capacity = capacity
        self.past = 0
        self.cache: dict[str, Array] = {}
        self.reset()

    def reset(self) -> None:
        """Forget all tokens."""
        self.past = 0
        self.cache = {name: np.zeros(self._shape(name), np.float32) for name in self.cached}

    def fill(self, cache: dict[str, Array]) -> None:
        """Take keys and values (1, heads, tokens, size) of earlier tokens, by the names of the inputs."""
        self.reset()
        for name, each in cache.items():
            self.past = each.shape[2]
            if self.fused:
                self.cache[name][:, :, : self.past] = each
            else:
                self.cache[name] = each

    def rewind(self, past: int) -> None:
        """Forget the tokens after the first `past`."""
        self.past = past
        if not self.fused:
            self.cache = {name: each[:, :, :past] for name, each in self.cache.items()}

    def run(self, ids: Array, last: bool = False) -> Array:
        """Logits (tokens, vocabulary) of `ids` (tokens,) after those of the calls before.

        `last`: only the last token's are wanted; where the graph can, it computes no others.
        """
        tokens = len(ids)
        if self.fused and self.past + tokens > self.capacity:
            raise ModelError(
                "the cache is full",
                found=f"{self.past + tokens} tokens",
                allowed=f"{self.capacity}",
                next="a shorter prompt, fewer new tokens, or a larger capacity",
            )
        feeds = {
            "input_ids": np.asarray(ids, np.int64)[None],
            "attention_mask": np.ones((1, self.past + tokens), np.int64),
            "position_ids": np.arange(self.past, self.past + tokens, dtype=np.int64)[None],
        }
        feeds = {name: each for name, each in feeds.items() if name in self.inputs}
        self.past += tokens
        with running():
            return self._bound(feeds, 1 if last else tokens) if self.fused else self._plain(feeds)

    def _bound(self, feeds: dict[str, Array], logits_of: int) -> Array:
        binding = self.session.io_binding()
        if self.trims:  # by its address: an array is taken for inputs without a default only
            count = np.array([logits_of], np.int64)
            binding.bind_input(KEEP, "cpu", 0, np.int64, count.shape, count.ctypes.data)
        for name, each in feeds.items():
            binding.bind_cpu_input(name, each)
        for name, present in zip(self.cached, self.present, strict=True):
            buffer = self.cache[name]
            place = ("cpu", 0, np.float32, buffer.shape, buffer.ctypes.data)
            binding.bind_input(name, *place)
            binding.bind_output(present, *place)
        binding.bind_output("logits", "cpu")
        self.session.run_with_iobinding(binding)
        logits: Array = binding.get_outputs()[-1].numpy()[0]
        return logits

    def _plain(self, feeds: dict[str, Array]) -> Array:
        logits, *present = self.session.run(["logits", *self.present], {**feeds, **self.cache})
        self.cache = dict(zip(self.cached, present, strict=True))
        of_text: Array = logits[0]
        return of_text

    def _shape(self, name: str) -> tuple[int, int, int, int]:
        _, heads, _, size = self.inputs[name].shape
        return 1, int(heads), self.capacity if self.fused else 0, int(size)
