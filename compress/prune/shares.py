"""What a share of a width comes to, and which settings therefore lead to the same model. Needs no torch."""

from collections.abc import Mapping
from dataclasses import asdict, replace

from compress.config.prune import ChannelPrune, NoPrune, PruneConfig, Scope, TransformerPrune


def rounded_width(width: int, share: float, multiple: int) -> int:
    """`share` of `width`, to the nearest multiple; at least one multiple, never more than there is."""
    if share >= 1.0:
        return width
    nearest = max(1, round(width * share / multiple)) * multiple
    return min(nearest, width)


def canonical(config: PruneConfig, widths: Mapping[str, tuple[int, ...]]) -> PruneConfig:
    """One config for all that lead to the same model: shares become those of what really stays.

    `widths`: kind -> width of each layer of the dense model. `NoPrune` where nothing goes.
    """
    if isinstance(config, ChannelPrune):  # how many channels stay is torch-pruning's to say
        goals = (config.macs, config.latency_ms)
        whole = config.keep == 1 and goals == (None, None) and not config.sparse_epochs
        return NoPrune() if whole else config
    if not isinstance(config, TransformerPrune):
        return config
    dense = {"layers": len(widths["ffn"]), **{kind: max(per_layer) for kind, per_layer in widths.items()}}
    dense["heads"] = dense.get("kv_heads") or dense["heads"]  # those that share keys and values go together
    shares = {
        kind: _share(kind, share, dense[kind], config.round_to if kind == "ffn" else 1)
        for kind, share in asdict(config.keep).items()
        # of a width for each layer only the share is known
        if kind == "layers" or share == 1 or config.scope is not Scope["global"]
    }
    keep = replace(config.keep, **shares)
    whole = all(share == 1 for share in asdict(keep).values())
    return NoPrune() if whole and config.vocabulary is None else replace(config, keep=keep)


def _share(kind: str, share: float, dense: int, multiple: int) -> float:
    left = max(1, round(dense * share)) if kind == "layers" else rounded_width(dense, share, multiple)
    return left / dense
