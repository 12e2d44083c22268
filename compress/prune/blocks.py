"""A language model's layers, run one at a time over stored hidden states."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from compress.models.causal_lm import CausalLM

_BATCH = 4  # windows


class Blocks:
    """The decoder layers of `model`, which run on hidden states of windows of one length.

    What the model hands each layer beside the hidden states (masks, rotations) is the same for every
    window, so it is caught once; only (windows, tokens, hidden) need be kept of a calibration text.
    """

    def __init__(self, model: CausalLM, windows: Tensor) -> None:
        module: Any = model.module
        self.module = module
        self.layers = cast(nn.ModuleList, module.model.layers)
        self._kwargs: dict[nn.Module, dict[str, Any]] = {}
        with self._catching():
            module.model(input_ids=windows[:1], use_cache=False)

    @contextmanager
    def _catching(self) -> Iterator[None]:
        def catch(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._kwargs[block] = {k: v for k, v in kwargs.items() if k != "hidden_states"}

        handles = [block.register_forward_pre_hook(catch, with_kwargs=True) for block in self.layers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def embed(self, windows: Tensor) -> Tensor:
        """What enters the first layer: (windows, tokens, hidden)."""
        return torch.cat([self.module.get_input_embeddings()(window[None]) for window in windows])

    def run(self, block: nn.Module, hidden: Tensor) -> Tensor:
        """One window (tokens, hidden) through one layer."""
        found = block(hidden[None], **self._kwargs[block])
        return cast(Tensor, (found[0] if isinstance(found, tuple) else found)[0])

    def advance(self, block: nn.Module, states: Tensor) -> None:
        """Replace (windows, tokens, hidden) in front of one layer by those behind it, a few at a time."""
        for some in torch.split(states, _BATCH):
            found = block(some, **self._kwargs[block])
            some.copy_(found[0] if isinstance(found, tuple) else found)

    def logits(self, hidden: Tensor) -> Tensor:
        """(tokens, hidden) that left the last layer -> (tokens, vocabulary)."""
        found: Tensor = self.module.lm_head(self.module.model.norm(hidden))
        cap = getattr(self.module.config, "final_logit_softcapping", None)
        return found if cap is None else cap * torch.tanh(found / cap)
