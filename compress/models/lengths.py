"""Whether a language model, and this machine's memory, has room for the tokens that a run asks of it at once.

Told by config.json, before anything starts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compress.config.run import RunConfig
from compress.errors import ModelError
from compress.models.needs import machine_memory
from compress.schema.workload import Workload

_UNKNOWN = 2**31  # tokens, of a config.json that names no end


@dataclass(frozen=True)
class Shape:
    """Of a language model."""

    layers: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int

    def window_bytes(self, tokens: int) -> int:
        """Logits of a window, of the dense model and of one that is compared with it."""
        return 2 * 4 * tokens * self.vocabulary

    def call_bytes(self, workload: Workload, plain: bool) -> int:
        """Of one timed call at the least: keys and values of all tokens and, where a graph of plain operators
        is timed too, its logits and the scores of a layer."""
        tokens, seen = workload.batch * workload.size, workload.past + workload.size
        cache = 2 * self.layers * self.kv_heads * self.head_size * workload.batch * seen
        return 4 * (cache + plain * tokens * (self.vocabulary + self.heads * seen))


def shape_of(described: Mapping[str, Any]) -> Shape | None:
    """By a config.json; None where it does not say it in numbers, which reading the model tells of."""
    heads = described.get("num_attention_heads")
    width = described.get("hidden_size")
    numbers: tuple[Any, ...] = (
        described.get("num_hidden_layers"),
        heads,
        described.get("num_key_value_heads") or heads,
        described.get("head_dim") or (width // heads if width and heads else None),
        described.get("vocab_size"),
    )
    return Shape(*numbers) if all(isinstance(each, int) for each in numbers) else None


def context_of(described: Mapping[str, Any]) -> int:
    """Tokens that a model reads at most, by its config.json."""
    return int(described.get("max_position_embeddings") or _UNKNOWN)


def check_window(setting: str, tokens: int, stride: int | None, context: int) -> None:
    """Raise ModelError for windows longer than the model's context."""
    if tokens > context:
        shorter = f"{setting}={context}"
        if stride is not None:
            shorter += f" {setting.rpartition('.')[0]}.stride={min(context, stride)}"
        raise ModelError(
            "the windows are longer than the model's",
            found=f"{setting}={tokens}",
            allowed=f"at most {context} tokens, max_position_embeddings of config.json",
            next=shorter,
        )


def check_lengths(config: RunConfig, described: Mapping[str, Any], plain: bool) -> None:
    """Raise ModelError for windows or workloads of a run that the model of a config.json does not have, or
    that make more than this machine's memory holds. `plain`: whether a graph of plain operators is timed."""
    context, shape, memory = context_of(described), shape_of(described), machine_memory()
    for group in ("evaluate", "recover"):
        part, setting = getattr(config, group), f"{group}.context"
        if (tokens := getattr(part, "context", None)) is not None:
            check_window(setting, tokens, getattr(part, "stride", None), context)
            if shape and memory:
                _check_memory(f"{setting}={tokens}", shape.window_bytes(tokens), memory)
    for name in config.benchmark.workloads:
        workload = Workload.parse(name)
        if workload.past + workload.size > context:
            raise ModelError(
                "the workload is longer than the model's context",
                found=f"benchmark.workloads has {name}: {workload.past + workload.size} tokens",
                allowed=f"at most {context}, max_position_embeddings of config.json",
                next=f"one such as {workload.batch}x{context} or {workload.batch}x1+{context - 1}",
            )
        if shape and memory:
            _check_memory(f"workload {name}", shape.call_bytes(workload, plain), memory)


def _check_memory(what: str, needed: int, memory: int) -> None:
    if needed > memory:
        raise ModelError(
            "texts of that length need more than this machine's memory",
            found=f"{what}: at least {needed / 1e9:.1f} GB, of its logits, attention and cache alone",
            allowed=f"{memory / 1e9:.1f} GB",
            next="fewer tokens, a smaller batch, or a machine with more memory",
        )
