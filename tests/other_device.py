"""A device that is not the CPU, where there is no GPU: its tensors compute here, and refuse those of the CPU.

They say that they are on torch's device `meta`. What mixes the two devices is an error, as it is on a GPU.
"""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

THERE = torch.device("meta")
CHOICE = torch.ops.aten._fused_sdp_choice.default


class Elsewhere(torch.Tensor):
    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "Elsewhere":
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, held.shape, strides=held.stride(), dtype=held.dtype, device=THERE
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(function, args, kwargs or {})


def computed(function: Any, args: Any, kwargs: Any) -> Any:
    if function is CHOICE:
        return 0  # attention by plain operators
    seen: list[torch.Tensor] = []
    tree_map_only(torch.Tensor, seen.append, [args, kwargs])
    there = [each for each in seen if isinstance(each, Elsewhere)]
    target = kwargs.get("device")
    leaves = target is not None and torch.device(target).type == "cpu"
    if there and function is not torch.ops.aten.copy_.default:
        mixed = [each for each in seen if not isinstance(each, Elsewhere) and each.dim()]
        assert not mixed, f"{function} on two devices"
    args, kwargs = tree_map_only(Elsewhere, lambda each: each.held, (args, kwargs))
    if target is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    given = function(*args, **kwargs)
    if function._schema.is_mutable and seen:
        return seen[0]
    arrives = bool(there) if target is None else not leaves
    return tree_map_only(torch.Tensor, Elsewhere, given) if arrives else given


class OtherDevice(TorchDispatchMode):
    """What is sent to `THERE`, or made there, is `Elsewhere`."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(function, args, kwargs or {})
