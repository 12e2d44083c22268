"""Where config.json says that a text model begins to compute otherwise, or ends: at so many tokens."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from compress.errors import ModelError
from compress.models.architectures import LANGUAGE_MODELS

_WINDOWS = ("sliding_window", "local_attention", "attention_chunk_size")
_ORIGINAL = "original_max_position_embeddings"
_COUNTED_FROM_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")  # positions, from behind its number
_ROTATED = ("modernbert", "eurobert", "nomic_bert", *LANGUAGE_MODELS)  # by positions that are in no table


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
    """Tokens that an encoder has learned positions for; None where it computes them for any number.

    Raises ModelError where config.json does not tell.
    """
    kind = config["model_type"]
    if kind in _ROTATED:
        return None
    rows = int(config["max_position_embeddings"])
    if kind not in _COUNTED_FROM_PADDING:
        return rows
    padding = 1 if kind == "mpnet" else config.get("pad_token_id", 1)  # MPNet goes by no config
    if padding is None:
        raise ModelError(
            f"{kind} counts positions from behind the number of its padding",
            found="pad_token_id null in config.json",
            allowed="a number of a token",
        )
    return rows - int(padding) - 1


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
