"""What the products of a language model read, one transformer layer after another.

Only the hidden states between two layers are kept, so that a layer may be changed before the next one's
inputs are computed.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

_BATCH = 4  # windows


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Linear layers of one transformer layer that read the same tensor."""

    names: tuple[str, ...]  # within the model
    linears: tuple[nn.Linear, ...]
    moment: Tensor = field(default_factory=lambda: torch.empty(0))  # E[x x^T] (channels, channels), if asked


Visit = Callable[[Reading, Tensor], None]


class _Reached(Exception):
    pass


class LayerInputs:
    """Walks through the layers of `model` (a `CausalLM`) on windows of tokens (windows, tokens)."""

    def __init__(self, model: Any, windows: Tensor) -> None:
        self.blocks: list[nn.Module] = list(model.module.model.layers)
        self.names = {id(linear): name for name, linear in model.linears().items()}
        self.final: nn.Module = model.module.model.norm
        self.arguments: list[dict[str, Any]] = [{} for _ in self.blocks]
        self.states = self._first(model.module, windows)

    def readings(self, index: int) -> list[Reading]:
        """Of layer `index`, in the order in which they compute."""
        found: dict[int, list[nn.Linear]] = defaultdict(list)
        kept = []  # a tensor that died could give its number to another

        def note(linear: nn.Module, args: tuple[Tensor, ...]) -> None:
            kept.append(args[0])
            assert isinstance(linear, nn.Linear)
            found[id(args[0])].append(linear)

        hooks = [linear.register_forward_pre_hook(note) for linear in self._linears(index)]
        self._run(index, self.states[:1])
        for hook in hooks:
            hook.remove()
        return [
            Reading(names=tuple(self.names[id(each)] for each in linears), linears=tuple(linears))
            for linears in found.values()
        ]

    def visit(self, index: int, seen: Visit) -> None:
        """Call `seen` with every reading and its input (windows, tokens, channels), a few at a time."""
        hooks = [
            reading.linears[0].register_forward_pre_hook(
                lambda _, args, reading=reading: seen(reading, args[0])
            )
            for reading in self.readings(index)
        ]
        for batch in self._batches():
            self._run(index, batch)
        for hook in hooks:
            hook.remove()

    def outputs(self, index: int, windows: int | None = None) -> dict[str, tuple[Tensor, Tensor]]:
        """Name -> input and output of each linear layer, for the first `windows`."""
        found: dict[str, tuple[Tensor, Tensor]] = {}

        def note(linear: nn.Module, args: tuple[Tensor, ...], made: Tensor) -> None:
            found[self.names[id(linear)]] = args[0], made

        hooks = [linear.register_forward_hook(note) for linear in self._linears(index)]
        self._run(index, self.states[:windows])
        for hook in hooks:
            hook.remove()
        return found

    def advance(self, index: int) -> None:
        """Replace the states in front of layer `index` by those behind it."""
        for batch in self._batches():
            batch.copy_(self._run(index, batch))

    @torch.no_grad()
    def behind(self, index: int) -> Tensor:
        """What the head reads, when the states go through layer `index` and all that follow."""
        made = []
        for states in self._batches():
            for later in range(index, len(self.blocks)):
                states = self._run(later, states)
            made.append(self.final(states))
        return torch.cat(made)

    def _linears(self, index: int) -> list[nn.Linear]:
        return [each for each in self.blocks[index].modules() if isinstance(each, nn.Linear)]

    def _batches(self) -> Iterator[Tensor]:
        for start in range(0, len(self.states), _BATCH):
            yield self.states[start : start + _BATCH]

    @torch.no_grad()
    def _run(self, index: int, states: Tensor) -> Tensor:
        made = self.blocks[index](states, **self.arguments[index])
        found: Tensor = made[0] if isinstance(made, tuple) else made
        return found

    @torch.no_grad()
    def _first(self, module: nn.Module, windows: Tensor) -> Tensor:
        """What the first layer reads; notes the arguments (masks, positions) that every layer is given."""
        states: list[Tensor] = []

        def note(index: int) -> Callable[..., None]:
            def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                self.arguments[index] = {k: v for k, v in kwargs.items() if k != "hidden_states"}

            return hook

        def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            states.append(args[0] if args else kwargs["hidden_states"])
            raise _Reached

        hooks = [
            block.register_forward_pre_hook(note(i), with_kwargs=True) for i, block in enumerate(self.blocks)
        ]
        module(input_ids=windows[:1], use_cache=False)
        for hook in hooks:
            hook.remove()
        last = self.blocks[0].register_forward_pre_hook(stop, with_kwargs=True)
        for window in windows:
            with suppress(_Reached):
                module(input_ids=window[None], use_cache=False)
        last.remove()
        return torch.cat(states)


def second_moments(inputs: LayerInputs, index: int) -> list[Reading]:
    """The readings of layer `index` with E[x x^T] of what they read."""
    found: dict[tuple[str, ...], Reading] = {}
    count = inputs.states.shape[0] * inputs.states.shape[1]

    def add(reading: Reading, x: Tensor) -> None:
        flat = x.reshape(-1, x.shape[-1]).float()
        if reading.names not in found:
            zeros = torch.zeros(flat.shape[1], flat.shape[1])
            found[reading.names] = replace(reading, moment=zeros)
        found[reading.names].moment.addmm_(flat.T, flat, alpha=1 / count)

    inputs.visit(index, add)
    return list(found.values())
