"""Pruning of transformers: vocabulary, layers, attention heads, feed-forward channels, where asked for.

What is coupled is named by the table of architectures (models/architectures.py): nothing has to be traced.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from compress.config.prune import Scope, TransformerPrune, check_comparable
from compress.data import load_texts
from compress.errors import ConfigError, ModelError
from compress.prune.depth import drop_layers
from compress.prune.reload import check_reload
from compress.prune.tokens import bytes_per_token, cut_vocabulary
from compress.prune.width import cuts_of, narrow
from compress.stages.result import write_result
from compress.tasks import Model, load, part

if TYPE_CHECKING:  # what prunes other models is no other version for it
    from compress.tasks.language_modeling.model import CausalLM


def prune(config: TransformerPrune, checkpoint: Path, splits: Path, out: Path) -> None:
    """Cut, write the checkpoint and prove it by stock transformers.

    Raises ModelError for a model without transformer layers, or whose tokenizer or heads cannot be cut,
    ConfigError for a share or a vocabulary that leaves too little, and GateError where the checkpoint opened
    again computes something else.
    """
    model = load(checkpoint)
    stack, causal, before = model.stack, model.stack.architecture.causal, model.widths()
    check(model, config)
    protected = max(config.protect_first, int(bool(stack.architecture.first_stays))), config.protect_last
    left = layers_left(config, len(before["ffn"]), protected)
    with tempfile.TemporaryDirectory() as folder:  # files of a smaller vocabulary, until they are saved
        summary: dict[str, Any] = {}
        changes: dict[str, Any] = {"kept_tokens": None}
        if config.vocabulary is not None:
            changes["kept_tokens"], summary = vocabulary(model, config.vocabulary, splits, Path(folder))
        task = part("compress.tasks.*.calibration", checkpoint)
        data = task.open_calibration(model, splits, config)
        # Of the dense model, but for its vocabulary: what the layers that stay have to come near to.
        distances = data.distances() if left < len(before["ffn"]) else None
        cuts = [cut for cut in cuts_of(stack, config) if cut.share < 1.0]
        if causal and config.scope is Scope["local"]:
            narrow(model, cuts, config, data)
        dropped: list[int] = []
        if distances is not None:
            dropped = drop_layers(stack, left, protected, distances)
        if causal and config.scope is Scope["global"]:  # one share of the layers that stay
            narrow(model, cuts, config, data)
        elif not causal:
            for cut in cuts:  # channels by what reads them when the heads are gone
                narrow(model, [cut], config, data)
        after = model.widths()
        kept = tuple(number for number in range(len(before["ffn"])) if number not in dropped)
        changes["kept_layers"] = kept if dropped else None
        model.save(out, model.facts.after(step(config, before, after), **changes))
    check_reload(model, out)
    summary |= {"before": before, "after": after, "dropped_layers": dropped}
    if data.tokens is not None:
        summary["calibration_tokens"] = data.tokens
    write_result(out, facts={"pruning": summary})


def check(model: Model, config: TransformerPrune) -> None:
    """Raise ConfigError for what leaves nothing, or does not work on this kind of model, and ModelError for
    heads or layers that cannot be cut."""
    architecture, widths, keep = model.stack.architecture, model.widths(), config.keep
    kv_heads = "kv_heads" if architecture.causal else "heads"
    ffn = widths["ffn"]
    for name, size in {"ffn": min(ffn), "heads": min(widths[kv_heads]), "layers": len(ffn)}.items():
        share = getattr(keep, name)
        if share * size < 0.5:
            raise ConfigError(
                f"prune.keep.{name} leaves nothing of {size}",
                found=share,
                allowed=f"at least {0.5 / size:.3g}, which leaves one",
            )
    if architecture.whole_heads and keep.heads < 1.0:
        raise ModelError(
            f"heads of a {model.stack.config.model_type} model cannot be cut one layer at a time",
            found=architecture.whole_heads,
            allowed="prune.keep.heads=1.0",
        )
    if architecture.causal:
        check_comparable(config)
        if len(set(ffn)) > 1 and keep.ffn < 1.0:
            raise ModelError(
                "the feed-forward layers have widths of their own already",
                found=f"{min(ffn)} to {max(ffn)}",
                allowed="layers of one width, as in the dense model",
                next="prune the dense model once, to the share wanted in the end",
            )
    elif config.vocabulary is not None:
        raise ConfigError(
            "prune.vocabulary cuts the vocabulary of language models",
            found=model.facts.task,
            allowed="prune.vocabulary=null",
        )


def layers_left(config: TransformerPrune, layers: int, protected: tuple[int, int]) -> int:
    """Raises ConfigError where too few layers are free to go."""
    left = max(1, round(layers * config.keep.layers))
    free = max(layers - sum(protected), 0)
    if layers - left > free:
        raise ConfigError(
            "prune.keep.layers drops more layers than may go",
            found=f"{config.keep.layers}, {layers - left} of {layers}",
            allowed=f"at most {free}: the first {protected[0]} and the last {protected[1]} stay "
            "(prune.protect_first, prune.protect_last)",
        )
    return left


def vocabulary(
    model: Model, target: int, splits: Path, folder: Path
) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Cut it: the tokens kept, and what the report says."""
    language_model = cast("CausalLM", model)
    read = load_texts(splits)
    texts, held_out = read.calibration.texts + read.train.texts, read.select.texts
    sets = {name: some for name, some in {"counted": texts, "select": held_out}.items() if some}
    before = {name: bytes_per_token(language_model, some) for name, some in sets.items()}
    kept = cut_vocabulary(language_model, texts, target, folder)
    after = {name: bytes_per_token(language_model, some) for name, some in sets.items()}
    return kept, {"bytes_per_token": {"before": before, "after": after}}


def step(
    config: TransformerPrune, before: Mapping[str, Sequence[int]], after: Mapping[str, Sequence[int]]
) -> str:
    """What was done, for the lineage."""
    parts = [
        f"{kind} {old[0]} to {_width(after[kind])}"
        for kind, old in before.items()
        if {*old} != {*after[kind]}
    ]
    if len(after["ffn"]) < len(before["ffn"]):
        parts.append(f"layers {len(before['ffn'])} to {len(after['ffn'])}")
    how = config.importance, config.scope.value, "least squares" if config.repair else "no repair"
    return f"pruned ({', '.join(how)}): {', '.join(parts) or 'nothing'}"


def _width(widths: Sequence[int]) -> str:
    """One number, or what they are between and on average."""
    low, high = min(widths), max(widths)
    return f"{low}" if low == high else f"{low}-{high} (mean {sum(widths) / len(widths):.0f})"
