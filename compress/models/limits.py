"""Where config.json says that a text model begins to compute otherwise, or ends: at so many tokens."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_WINDOWS = ("sliding_window", "local_attention", "attention_chunk_size")
_ORIGINAL = "original_max_position_embeddings"
_COUNTED_FROM_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")  # positions, from behind its number
_ROTATED = ("modernbert", "eurobert", "nomic_bert")  # by positions that are in no table


def windows(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Tokens that attention sees at most, in some layers; sorted.

    What config.json names and the model does not use (Qwen2's window, say) is a limit all the same: that
    nothing happens there is worth knowing.
    """
    return _sizes(config.get(key) for key in _WINDOWS)


def contexts(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Positions at which the rotation changes, and the last one; sorted."""
    return _sizes(_contexts(config))


def table_of_positions(config: Mapping[str, Any]) -> int | None:
    """Tokens that an encoder has learned positions for; None where it computes them for any number."""
    kind = config["model_type"]
    if kind in _ROTATED:
        return None
    padding = 1 if kind == "mpnet" else int(config.get("pad_token_id", 1))  # MPNet goes by no config
    return int(config["max_position_embeddings"]) - (padding + 1 if kind in _COUNTED_FROM_PADDING else 0)


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
