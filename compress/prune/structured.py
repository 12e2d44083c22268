"""Structured pruning of a transformer: layers, then attention heads, then feed-forward channels.

torch-pruning finds what is coupled and cuts it; which channels go, and the repair of what is left,
is ours.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
import torch_pruning as tp
from torch import Tensor, nn

from compress.config.prune import Importance, Keep, Scope, StructuredPrune
from compress.data import load_images, load_texts
from compress.errors import ConfigError, ModelError
from compress.models import Model, load, read_check_inputs
from compress.models.causal_lm import FAMILY as CAUSAL_LM
from compress.models.image_classifier import ImageClassifier
from compress.prune.activation_stats import Moments, collect
from compress.prune.examples import Examples, Labelled, inputs_of
from compress.prune.gradients import accumulate
from compress.prune.importance import importance
from compress.prune.least_squares import least_squares
from compress.prune.reload import check_reload, check_reopened
from compress.prune.selection import removed, select_global, select_local
from compress.prune.tracing import told
from compress.stages.result import write_result

log = logging.getLogger(__name__)


def prune(config: StructuredPrune, checkpoint: Path, splits: Path, out: Path) -> None:
    """Cut, write the checkpoint and prove it: by stock transformers, or where widths differ by layer, which
    it cannot load, by this package.

    Raises ModelError for a model without transformer layers, ConfigError for a share that leaves nothing,
    and GateError where the checkpoint opened again computes something else.
    """
    model = load(checkpoint)
    if model.facts.family == CAUSAL_LM:
        raise ModelError(
            "prune=structured does not cut language models",
            found=model.facts.family,
            allowed="prune=language, with prune.vocabulary, prune.keep.ffn, .kv_heads and .layers",
            next="prune=narrow_llm, shallow_llm or small_vocabulary to begin with",
        )
    stack = model.stack
    before = stack.widths()
    check_shares(config.keep, before)
    examples = _calibration(model, splits)
    dropped = drop_layers(model, config.keep.layers, examples, config.batch_size)
    if config.keep.heads < 1.0:
        prune_heads(model, config, examples)
    if config.keep.ffn < 1.0:
        prune_ffn(model, config, examples)
    ragged = stack.note_ffn_widths()
    after = stack.widths()
    step = f"pruned ({config.importance.value}, {config.scope.value}): " + ", ".join(
        f"{kind} {sum(before[kind])} to {sum(after[kind])}" for kind in after
    )
    if ragged is not None:
        step += "; widths differ by layer, so it ships as ONNX only"
    layers = tuple(i for i in range(len(before["ffn"])) if i not in dropped) if dropped else None
    model.save(out, model.facts.after(step, ffn_widths=ragged, kept_layers=layers))
    if ragged is None:
        check_reload(model, out)
    else:
        inputs = {name: torch.from_numpy(each) for name, each in read_check_inputs(out).items()}
        check_reopened(model, out, inputs)
    summary = {"before": before, "after": after, "dropped_layers": dropped}
    write_result(out, facts={"pruning": summary})


def check_shares(keep: Keep, widths: Mapping[str, Sequence[int]]) -> None:
    """Raise ConfigError for a share that is nearer to nothing than to one of the smallest layer."""
    sizes = {kind: min(counts) for kind, counts in widths.items()} | {"layers": len(widths["ffn"])}
    for kind, size in sizes.items():
        share = getattr(keep, kind)
        if share * size < 0.5:
            raise ConfigError(
                f"prune.keep.{kind} leaves nothing of {size}",
                found=share,
                allowed=f"at least {0.5 / size:.3g}, which leaves one",
            )


def _calibration(model: Model, splits: Path) -> Examples:
    if isinstance(model, ImageClassifier):
        data = load_images(splits).calibration
        return Labelled(data.images, data.labels)
    return load_texts(splits).calibration.texts


def prune_ffn(model: Model, config: StructuredPrune, examples: Examples) -> None:
    """Cut feed-forward channels and repair the layers that read them."""
    layers = model.stack.layers()
    readers: list[nn.Module] = [layer.ffn_out for layer in layers]
    moments = _prepare(model, config, readers, examples)
    scores = _scores(model, config, [layer.ffn_in for layer in layers], moments, config.repair)
    kept = _select(config, scores, config.keep.ffn, config.round_to)
    graph = _dependencies(model)
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


def prune_heads(model: Model, config: StructuredPrune, examples: Examples) -> None:
    """Cut whole attention heads: the rows of query, key and value, the columns of the output."""
    stack = model.stack
    if not stack.architecture.prunable_heads:
        raise ModelError(
            f"heads of a {stack.config.model_type} model cannot be pruned one layer at a time",
            allowed="prune.keep.heads=1.0",
        )
    layers, size = stack.layers(), stack.head_size
    readers: list[nn.Module] = [layer.attention_output for layer in layers]
    moments = _prepare(model, config, readers, examples)
    channels = _scores(model, config, [layer.value for layer in layers], moments, repair=False)
    scores = [channel.view(-1, size).sum(1) for channel in channels]
    kept = _select(config, scores, config.keep.heads, 1)
    graph = _dependencies(model)
    for index, (layer, keep) in enumerate(zip(layers, kept, strict=True)):
        gone = removed(keep, len(scores[index]))
        columns = [head * size + i for head in gone for i in range(size)]
        _cut(graph, layer.query, columns)
        stack.note_pruned_heads(index, gone)


@torch.no_grad()
def drop_layers(model: Model, share: float, examples: Examples, batch_size: int) -> list[int]:
    """Remove layers greedily: each time the one whose absence changes the outputs least.

    For embeddings by the mean cosine to the dense model's, for a classifier by the mean Kullback-Leibler
    divergence of its answers from the dense model's. Returns the dropped layers by their index in the
    dense model.
    """
    stack = model.stack
    left = list(range(len(stack.layers())))
    target = max(1, round(len(left) * share))
    dropped: list[int] = []
    if len(left) == target:
        return dropped
    name, nearness = (
        ("-KL", minus_kl) if isinstance(examples, Labelled) else ("cosine", nn.functional.cosine_similarity)
    )

    def outputs() -> Iterable[Tensor]:
        return map(model.run, inputs_of(model, examples, batch_size))

    dense = list(outputs())
    while len(left) > target:
        near = []
        for index in range(len(left)):
            with stack.without_layer(index):
                pairs = zip(outputs(), dense, strict=True)
                near.append(float(torch.cat([nearness(found, wanted) for found, wanted in pairs]).mean()))
        best = max(range(len(left)), key=near.__getitem__)
        log.info("dropped layer %d: mean %s to dense %.4f", left[best], name, near[best])
        stack.drop_layer(best)
        dropped.append(left.pop(best))
    return dropped


def minus_kl(logits: Tensor, dense: Tensor) -> Tensor:
    """- KL(dense || found) in nats, of (batch, classes) each: (batch)."""
    found, wanted = (nn.functional.log_softmax(each, -1) for each in (logits, dense))
    return -nn.functional.kl_div(found, wanted, log_target=True, reduction="none").sum(-1)


def _prepare(
    model: Model, config: StructuredPrune, readers: Sequence[nn.Module], examples: Examples
) -> dict[nn.Module, Moments]:
    """Moments for activation scores and for the repair; gradients for Taylor."""
    if config.importance is Importance.taylor:
        accumulate(model, examples, config.batch_size)
    return collect(model, readers, examples, config.batch_size)


def _scores(
    model: Model,
    config: StructuredPrune,
    roots: Sequence[nn.Linear],
    moments: dict[nn.Module, Moments],
    repair: bool,
) -> list[Tensor]:
    """One score a channel for each layer."""
    graph = _dependencies(model)
    measure = importance(config.importance, moments, repair, config.damping)
    groups = [
        graph.get_pruning_group(root, tp.prune_linear_out_channels, idxs=list(range(root.out_features)))
        for root in roots
    ]
    scores = [measure(group) for group in groups]
    model.module.zero_grad()  # of what is cut next, nothing may stay
    return scores


def _select(config: StructuredPrune, scores: list[Tensor], share: float, multiple: int) -> list[Tensor]:
    select = select_global if config.scope is Scope["global"] else select_local
    return select(scores, share, multiple)


def _dependencies(model: Model) -> tp.DependencyGraph:
    with told():
        return tp.DependencyGraph().build_dependency(
            model.module,
            example_inputs=model.example(),
            output_transform=lambda out: out if isinstance(out, Tensor) else out[model.output_name],
        )


def _cut(graph: tp.DependencyGraph, root: nn.Linear, channels: list[int]) -> None:
    if channels:
        group = graph.get_pruning_group(root, tp.prune_linear_out_channels, idxs=channels)
        group.prune()
