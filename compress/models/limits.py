"""Where config.json says that a text model begins to compute otherwise: at so many tokens."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_WINDOWS = ("sliding_window", "local_attention", "attention_chunk_size")
_ORIGINAL = "original_max_position_embeddings"


def windows(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Tokens that attention sees at most, in some layers; sorted.

    What config.json names and the model does not use (Qwen2's window, say) is a limit all the same: that
    nothing happens there is worth knowing.
    """
    return _sizes(config.get(key) for key in _WINDOWS)


def contexts(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Positions at which the rotation changes, and the last one; sorted."""
    return _sizes(_contexts(config))


def _sizes(values: Iterable[Any]) -> tuple[int, ...]:
    return tuple(sorted({int(v) for v in values if isinstance(v, int | float) and 1 < v < 1e9}))


def _contexts(config: Mapping[str, Any]) -> Iterator[Any]:
    yield config.get("max_position_embeddings")
    yield config.get(_ORIGINAL)
    for key in ("rope_parameters", "rope_scaling"):
        described = config.get(key)
        if isinstance(described, Mapping):
            yield described.get(_ORIGINAL)
            for nested in described.values():  # by type of layer
                if isinstance(nested, Mapping):
                    yield nested.get(_ORIGINAL)
