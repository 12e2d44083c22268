"""Hooks of torch modules, for as long as a context lasts."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from torch.utils.hooks import RemovableHandle


@contextmanager
def hooked(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """With the hooks that these handles stand for, which are removed at the end, also after an error."""
    with ExitStack() as stack:
        for handle in handles:
            stack.enter_context(handle)
        yield
