"""A language model whose cache goes in and comes out as tensors, as a graph has it."""

import copy
from typing import Any

from torch import Tensor, nn
from transformers import DynamicCache

Pair = tuple[Tensor, Tensor]  # keys and values of a layer: (batch, heads, tokens, size)


def cached(module: nn.Module) -> nn.Module:
    """The same weights under another forward; layers that attend to a window keep all tokens, too."""

    class Cached(type(module)):  # type: ignore[misc]
        def forward(
            self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, past: list[Pair]
        ) -> tuple[Tensor, list[Pair]]:
            """Logits (batch, tokens, vocabulary) and the longer cache. `input_ids`, `position_ids`: (batch,
            tokens); `attention_mask`: (batch, past + tokens), 0 where a text was filled up."""
            found: Any = super().forward(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=DynamicCache(past),
                use_cache=True,
            )
            return found.logits, [(layer.keys, layer.values) for layer in found.past_key_values.layers]

    view = copy.copy(module)
    view.__class__ = Cached
    return view
