"""What every call of torch-pruning needs."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from compress.errors import ModelError


def fresh_defaults() -> dict[str, Any]:
    """Arguments in place of its defaults: dicts that all pruners of a process share and write to."""
    return {"in_channel_groups": {}, "out_channel_groups": {}, "num_heads": {}}


@contextmanager
def torch_pruning_errors() -> Iterator[None]:
    """Turn what torch-pruning or autograd raise into a ModelError."""
    try:
        with warnings.catch_warnings():
            # Factors of channels that no layer of torch's holds, as in ConvNeXt: it cuts them rightly.
            warnings.filterwarnings("ignore", "Unwrapped parameters", UserWarning)
            yield
    except (RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError) as error:
        raise ModelError(
            "torch-pruning cannot trace or cut this net",
            found=" ".join(str(error).split())[:300] or type(error).__name__,
            next="prune=none quantize=int8_static works on any net that can be exported",
        ) from error
