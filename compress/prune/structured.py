"""Structured pruning of an encoder: layers, then attention heads, then feed-forward channels.

torch-pruning finds what is coupled and cuts it; which channels go, and the repair of what is left,
is ours.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
import torch_pruning as tp
from torch import Tensor, nn

from compress.config import Importance, Scope, StructuredPrune
from compress.data import load_texts
from compress.errors import ConfigError, ModelError
from compress.families import load_encoder
from compress.families.encoder import Encoder
from compress.prune.importance import contrastive_loss, importance
from compress.prune.moments import Moments, collect
from compress.prune.reload import check_reload
from compress.prune.repair import least_squares
from compress.prune.selection import removed, select_global, select_local
from compress.registry import register

log = logging.getLogger(__name__)


@register(StructuredPrune)
def prune(config: StructuredPrune, checkpoint: Path, splits: Path, out: Path) -> None:
    encoder = load_encoder(checkpoint)
    texts = load_texts(splits).calibration.texts
    before = encoder.widths()
    dropped = drop_layers(encoder, config.keep.layers, texts, config.batch_size)
    if config.keep.heads < 1.0:
        prune_heads(encoder, config, texts)
    if config.keep.ffn < 1.0:
        prune_ffn(encoder, config, texts)
    ragged = encoder.note_ffn_widths()
    after = encoder.widths()
    step = f"pruned ({config.importance.value}, {config.scope.value}): " + ", ".join(
        f"{kind} {sum(before[kind])} to {sum(after[kind])}" for kind in after
    )
    layers = tuple(i for i in range(len(before["ffn"])) if i not in dropped) if dropped else None
    encoder.save(out, encoder.facts.after(step, ffn_widths=ragged, kept_layers=layers))
    if ragged is None:
        check_reload(encoder, out)
    summary = {"before": before, "after": after, "dropped_layers": dropped}
    (out / "prune.json").write_text(json.dumps(summary, indent=2))


def prune_ffn(encoder: Encoder, config: StructuredPrune, texts: Sequence[str]) -> None:
    """Cut feed-forward channels and repair the layers that read them."""
    layers = encoder.layers()
    readers: list[nn.Module] = [layer.ffn_out for layer in layers]
    moments = _prepare(encoder, config, readers, texts)
    scores = _scores(encoder, config, [layer.ffn_in for layer in layers], moments, config.repair)
    kept = _select(config, scores, config.keep.ffn, config.round_to)
    graph = _dependencies(encoder)
    for layer, keep in zip(layers, kept, strict=True):
        seen, width = moments.get(layer.ffn_out), layer.ffn_in.out_features
        if config.repair and seen is not None:
            repaired = least_squares(
                layer.ffn_out.weight.detach(),
                layer.ffn_out.bias.detach(),
                seen.mean(),
                seen.covariance(),
                keep,
                config.damping,
            )
        _cut(graph, layer.ffn_in, removed(keep, width))
        if config.repair and seen is not None:
            with torch.no_grad():
                layer.ffn_out.weight.copy_(repaired[0])
                layer.ffn_out.bias.copy_(repaired[1])


def prune_heads(encoder: Encoder, config: StructuredPrune, texts: Sequence[str]) -> None:
    """Cut whole attention heads: the rows of query, key and value, the columns of the output."""
    if not encoder.architecture.prunable_heads:
        raise ModelError(
            f"heads of a {encoder.module.config.model_type} model cannot be pruned one layer at a time",
            allowed="prune.keep.heads=1.0",
        )
    layers, size = encoder.layers(), encoder.head_size
    readers: list[nn.Module] = [layer.attention_output for layer in layers]
    moments = _prepare(encoder, config, readers, texts)
    channels = _scores(encoder, config, [layer.value for layer in layers], moments, repair=False)
    scores = [channel.view(-1, size).sum(1) for channel in channels]
    kept = _select(config, scores, config.keep.heads, 1)
    graph = _dependencies(encoder)
    for index, (layer, keep) in enumerate(zip(layers, kept, strict=True)):
        gone = removed(keep, len(scores[index]))
        columns = [head * size + i for head in gone for i in range(size)]
        _cut(graph, layer.query, columns)
        encoder.note_pruned_heads(index, gone)


@torch.no_grad()
def drop_layers(encoder: Encoder, share: float, texts: Sequence[str], batch_size: int) -> list[int]:
    """Remove layers greedily: each time the one whose absence turns the embeddings least.

    Returns the dropped layers by their index in the dense model.
    """
    left = list(range(len(encoder.layers())))
    target = max(1, round(len(left) * share))
    dropped: list[int] = []
    if len(left) == target:
        return dropped
    batches = list(encoder.batches(texts, batch_size))
    dense = [encoder.module(**batch)["sentence_embedding"] for batch in batches]
    while len(left) > target:
        closeness = []
        for index in range(len(left)):
            with encoder.without_layer(index):
                closeness.append(_mean_cosine(encoder, batches, dense))
        best = max(range(len(left)), key=closeness.__getitem__)
        log.info("dropped layer %d: mean cosine to dense %.4f", left[best], closeness[best])
        encoder.drop_layer(best)
        dropped.append(left.pop(best))
    return dropped


def _mean_cosine(encoder: Encoder, batches: list[dict[str, Tensor]], dense: list[Tensor]) -> float:
    cosines = [
        nn.functional.cosine_similarity(encoder.module(**batch)["sentence_embedding"], target)
        for batch, target in zip(batches, dense, strict=True)
    ]
    return float(torch.cat(cosines).mean())


def _prepare(
    encoder: Encoder, config: StructuredPrune, readers: Sequence[nn.Module], texts: Sequence[str]
) -> dict[nn.Module, Moments]:
    """Moments for activation scores and for the repair; gradients for Taylor."""
    if config.importance is Importance.taylor:
        _accumulate_gradients(encoder, config, texts)
    return collect(encoder, readers, texts, config.batch_size)


def _accumulate_gradients(encoder: Encoder, config: StructuredPrune, texts: Sequence[str]) -> None:
    if config.batch_size == 1:
        raise ConfigError(
            "Taylor importance contrasts the texts of a batch",
            found="prune.batch_size=1",
            allowed="at least 2",
        )
    encoder.module.zero_grad()
    encoder.module.train()  # dropout makes the two passes differ
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for batch in encoder.batches(texts, config.batch_size):
            views = [encoder.module(**batch)["sentence_embedding"] for _ in range(2)]
            contrastive_loss(*views).backward()  # type: ignore[no-untyped-call]
    encoder.module.eval()


def _scores(
    encoder: Encoder,
    config: StructuredPrune,
    roots: Sequence[nn.Linear],
    moments: dict[nn.Module, Moments],
    repair: bool,
) -> list[Tensor]:
    """One score a channel for each layer."""
    graph = _dependencies(encoder)
    measure = importance(config.importance, moments, repair, config.damping)
    groups = [
        graph.get_pruning_group(root, tp.prune_linear_out_channels, idxs=list(range(root.out_features)))
        for root in roots
    ]
    scores = [measure(group) for group in groups]
    encoder.module.zero_grad()  # of what is cut next, nothing may stay
    return scores


def _select(config: StructuredPrune, scores: list[Tensor], share: float, multiple: int) -> list[Tensor]:
    select = select_global if config.scope is Scope["global"] else select_local
    return select(scores, share, multiple)


def _dependencies(encoder: Encoder) -> tp.DependencyGraph:
    example = encoder.tokenize(["one short text", "and a second one"])
    return tp.DependencyGraph().build_dependency(
        encoder.module, example_inputs=example, output_transform=lambda out: out["sentence_embedding"]
    )


def _cut(graph: tp.DependencyGraph, root: nn.Linear, channels: list[int]) -> None:
    if channels:
        group = graph.get_pruning_group(root, tp.prune_linear_out_channels, idxs=channels)
        group.prune()
