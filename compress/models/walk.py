"""A language model's layers, one at a time over stored hidden states.

Only the hidden states between two layers are kept, so that a layer may be changed before the next one's
inputs are computed. What the model hands each layer beside the states (masks, rotations) is the same for
every window of one length, so it is caught once.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from compress.models.device import computing, everywhere
from compress.models.hooks import hooked
from compress.models.layers import Stack

_BATCH = 4  # windows


class Layered(Protocol):
    """A language model of transformers and its layers."""

    @property
    def module(self) -> nn.Module: ...

    @property
    def stack(self) -> Stack: ...


@dataclass(frozen=True, kw_only=True)
class SharedInput:
    """Linear layers of one transformer layer that read the same tensor."""

    names: tuple[str, ...]  # within the model
    linears: tuple[nn.Linear, ...]
    moment: Tensor = field(default_factory=lambda: torch.empty(0))  # E[x x^T] (channels, channels), if asked


class Walk:
    """The layers of `model`, and what stands in front of one of them: `states` (windows, tokens, hidden).

    At first these are what the first layer reads of `windows` (windows, tokens); `advance` takes them on.
    """

    def __init__(self, model: Layered, windows: Tensor) -> None:
        self.module: Any = model.module
        self.stack = model.stack
        self.blocks = model.stack.blocks
        linears = (pair for pair in self.module.named_modules() if isinstance(pair[1], nn.Linear))
        self.names = {linear: name for name, linear in linears}
        self._arguments: dict[nn.Module, dict[str, Any]] = {}
        with _before(self.blocks, self._remember):
            self.stack.backbone(input_ids=windows[:1], use_cache=False)
        self.states = self._first(windows)

    def __len__(self) -> int:
        return len(self.blocks)

    @torch.no_grad()
    def run(self, index: int, states: Tensor) -> Tensor:
        """What layer `index` gives for (windows, tokens, hidden)."""
        block = self.blocks[index]
        with computing(block) as device:
            given = block(*everywhere(device, [states]), **everywhere(device, self._arguments[block]))
        return cast(Tensor, given[0] if isinstance(given, tuple) else given).to(states.device)

    def advance(self, index: int) -> None:
        """Replace the states in front of layer `index` by those behind it."""
        for states in torch.split(self.states, _BATCH):
            states.copy_(self.run(index, states))

    def behind(self, index: int) -> Tensor:
        """What the head reads, when the states go through layer `index` and all that follow."""
        outputs = []
        for states in torch.split(self.states, _BATCH):
            for later in range(index, len(self)):
                states = self.run(later, states)
            outputs.append(self.final(states))
        return torch.cat(outputs)

    @torch.no_grad()
    def final(self, states: Tensor) -> Tensor:
        """What the head reads of states that left the last layer; Granite divides what it gives instead."""
        scale = getattr(self.stack.config, "logits_scaling", None) or 1.0
        return cast(Tensor, self.stack.final_norm(states)) / scale

    @torch.no_grad()
    def logits(self, states: Tensor) -> Tensor:
        """(..., hidden) that left the last layer -> (..., vocabulary)."""
        logits: Tensor = self.module.get_output_embeddings()(self.final(states))
        cap = getattr(self.stack.config, "final_logit_softcapping", None)
        return logits if cap is None else cap * torch.tanh(logits / cap)

    # -- what the linear layers read

    def inputs(self, index: int) -> list[SharedInput]:
        """The linear layers of layer `index` by what they read, in the order in which they compute."""
        readers: dict[int, list[nn.Linear]] = defaultdict(list)
        tensors = []  # a tensor that died could give its number to another

        def note(linear: nn.Module, args: tuple[Tensor, ...], _: Any) -> None:
            tensors.append(args[0])
            readers[id(args[0])].append(cast(nn.Linear, linear))

        with _before(self.linears(index), note):
            self.run(index, self.states[:1])
        return [
            SharedInput(names=tuple(self.names[linear] for linear in linears), linears=tuple(linears))
            for linears in readers.values()
        ]

    def visit(self, index: int, see: Callable[[SharedInput, Tensor], None]) -> None:
        """Call `see` with the inputs of layer `index` (windows, tokens, channels), some windows at a time."""
        shared = {one.linears[0]: one for one in self.inputs(index)}
        with _before(shared, lambda linear, args, _: see(shared[cast(nn.Linear, linear)], args[0])):
            for states in torch.split(self.states, _BATCH):
                self.run(index, states)

    def second_moments(self, index: int) -> list[SharedInput]:
        """The inputs of layer `index` with E[x x^T] of what they are."""
        inputs: dict[tuple[str, ...], SharedInput] = {}
        count = self.states.shape[0] * self.states.shape[1]

        def add(shared: SharedInput, x: Tensor) -> None:
            flat = x.reshape(-1, x.shape[-1]).float()
            if shared.names not in inputs:
                moment = flat.new_zeros(flat.shape[1], flat.shape[1])
                inputs[shared.names] = replace(shared, moment=moment)
            inputs[shared.names].moment.addmm_(flat.T, flat, alpha=1 / count)

        self.visit(index, add)
        return [replace(each, moment=each.moment.cpu()) for each in inputs.values()]

    def outputs(self, index: int, windows: int | None = None) -> dict[str, tuple[Tensor, Tensor]]:
        """Name -> input and output of each linear layer, for the first `windows`."""
        values: dict[str, tuple[Tensor, Tensor]] = {}

        def note(linear: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            # Without a norm in front of it a layer reads the states themselves, which `advance` changes.
            values[self.names[cast(nn.Linear, linear)]] = args[0].clone().cpu(), output.cpu()

        with hooked(linear.register_forward_hook(note) for linear in self.linears(index)):
            self.run(index, self.states[:windows])
        return values

    def linears(self, index: int) -> list[nn.Linear]:
        return [part for part in self.blocks[index].modules() if isinstance(part, nn.Linear)]

    def _remember(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._arguments[block] = {name: value for name, value in kwargs.items() if name != "hidden_states"}

    @torch.no_grad()
    def _first(self, windows: Tensor) -> Tensor:
        """What the first layer reads."""
        states: list[Tensor] = []

        def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            states.append(args[0] if args else kwargs["hidden_states"])
            raise _Reached

        with _before(self.blocks[:1], stop):
            for window in windows:
                with suppress(_Reached):
                    self.stack.backbone(input_ids=window[None], use_cache=False)
        return torch.cat(states)


class _Reached(Exception):
    pass


def _before(modules: Iterable[nn.Module], hook: Callable[..., None]) -> AbstractContextManager[None]:
    """Call `hook` with a module, its arguments and its keywords before each of them runs."""
    return hooked(module.register_forward_pre_hook(hook, with_kwargs=True) for module in modules)
