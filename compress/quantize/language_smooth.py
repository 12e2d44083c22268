"""8-bit weights and activations for language models: SmoothQuant, its strength searched layer by layer.

SmoothQuant: see `smooth`. Here each group of layers that read one tensor gets the alpha with which the
8-bit products, activations rounded as onnxruntime rounds them, differ least from the float ones. One scale
for a whole prompt is too coarse where a few tokens are a thousand times larger than the others, in front of
down_proj most of all: there each token is divided by its largest magnitude first, and the product multiplied
by it. Groups that alone cost more than `Int8Smooth.layer_kl` get blocks of 8 bits, whose products are slower.
"""

import re
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from onnx import TensorProto
from onnxruntime.quantization import quantize_dynamic
from torch import Tensor, nn

from compress.config.quantize import Int8Smooth, WeightType
from compress.data import load_texts
from compress.graph import graph_path
from compress.models.hooks import hooked
from compress.models.walk import SharedInput, Walk
from compress.quantize import coverage
from compress.quantize.block_graph import INLINE_BYTES, TINY, BlockGraph
from compress.quantize.blocks import in_blocks
from compress.quantize.fidelity import (
    check_divergence,
    check_windows,
    divergence,
    head_divergence,
    windows_of,
)
from compress.quantize.kernels import quiet, resolve, weight_limits
from compress.quantize.language_layers import (
    EMBEDDING,
    HEAD,
    changed_weights,
    chosen_layers,
    embedding_of,
    weights_of,
)
from compress.quantize.smoothing import factors
from compress.schema.quantization import SmoothedLayers
from compress.stages.result import write_result
from compress.system.memory import give_back
from compress.tasks.language_modeling.model import CausalLM

ALPHAS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
COMPARED_WINDOWS = 4  # on which alphas are compared
KL_WINDOWS = 1  # for the KL of a group: each of a hundred groups takes half a run of the model
COMPARED_ROWS = 512  # outputs of a layer
TOKEN_SCALES_LEAVE = 0.5  # of the error, at most, for the four operators more that they take


@dataclass(kw_only=True)
class Sample:
    """Of a tensor: the largest magnitude of each channel, and a few windows of it."""

    largest: Tensor
    windows: list[Tensor] = field(default_factory=list)  # (tokens, channels) each


@dataclass(frozen=True, kw_only=True)
class Smoothed:
    names: tuple[str, ...]  # layers that read one tensor
    alpha: float | None  # None: better left as it is
    factors: np.ndarray  # (channels,)
    per_token: bool = False  # a scale for each token
    kl: float = 0.0  # nats a token, of 8 bits in them alone


def quantize(
    config: Int8Smooth, cpu_flags: Sequence[str], graph: Path, checkpoint: Path, splits: Path, out: Path
) -> None:
    kernel = resolve(cpu_flags, WeightType.auto, None)
    opened, groups, excluded, windows = _smooth(config, weight_limits(kernel)[1], graph, checkpoint, splits)
    with tempfile.TemporaryDirectory(dir=out) as folder, quiet():
        source = opened.save(Path(folder))
        del opened
        give_back()
        data = source.with_name(f"{source.name}_data")
        quantize_dynamic(
            source,
            graph_path(out),
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=kernel.reduce_range,
            weight_type=kernel.weight_type,
            nodes_to_exclude=excluded,
            use_external_data_format=data.is_file() and data.stat().st_size > 2 * INLINE_BYTES,
            extra_options={"DefaultTensorType": TensorProto.FLOAT},
        )
    give_back()
    patterns = [re.escape(name) for name in excluded]
    coverage.check(coverage.measure(graph_path(out), patterns), config.min_coverage, out)
    (kl,) = divergence(graph_path(graph), [graph_path(out)], windows)
    write_result(out, facts={"smoothing": groups})
    check_divergence(kl, config.max_kl, out)


def _smooth(
    config: Int8Smooth, largest: int, graph: Path, checkpoint: Path, splits: Path
) -> tuple[BlockGraph, list[SmoothedLayers], list[str], Tensor]:
    """The graph smoothed, with blocks where they are better; and what is left to know of the float model once
    it is gone from memory: its layers, the nodes that stay in float, the windows of the gate."""
    model, texts = CausalLM.open(checkpoint), load_texts(splits)
    names, linears = chosen_layers(model, config.exclude), model.linears()
    opened = BlockGraph(graph, weights_of(model), embedding_of(model).detach().numpy())
    groups = search(model, windows_of(model, texts.calibration.texts, config.windows), names, largest)
    size = next((size for size in (64, 32, 16) if model.config.hidden_size % size == 0), None)
    described, blocks = [], {}
    for group in groups:
        coarse = size is not None and group.kl > config.layer_kl
        described.append(
            SmoothedLayers(
                layers=group.names,
                alpha=group.alpha,
                per_token=group.per_token,
                kl=group.kl,
                blocks=coarse,
            )
        )
        if size is not None and coarse:
            blocks.update({name: in_blocks(linears[name].weight, 8, size) for name in group.names})
            continue
        products = opened.computing(group.names)
        if products and group.alpha is not None:
            opened.multiply_rows(products, group.factors)
            opened.divide_input(products, group.factors)
        if products and group.per_token:
            opened.scale_tokens(products)
    opened.put_products(blocks, config.accuracy_level)
    if size is not None:
        opened.put_tables(EMBEDDING, in_blocks(embedding_of(model), 8, size))
    return opened, described, opened.left_out(names), check_windows(model, texts)


@torch.no_grad()
def search(model: CausalLM, windows: Tensor, names: Collection[str], largest: int) -> list[Smoothed]:
    """Alpha, factors and KL of every group of layers that read one tensor; `largest`: integer weight."""
    walk, few, smoothed = Walk(model, windows), Walk(model, windows[:KL_WINDOWS]), []
    final, head = few.behind(0), model.linears()[HEAD]
    for index in range(len(walk)):
        inputs: dict[tuple[str, ...], Sample] = {}
        linears = {shared.names: shared.linears for shared in walk.inputs(index)}

        def observe(shared: SharedInput, x: Tensor, inputs: dict[tuple[str, ...], Sample] = inputs) -> None:
            _observe(inputs.setdefault(shared.names, Sample(largest=torch.zeros(x.shape[-1]))), x.cpu())

        walk.visit(index, observe)
        for group, sample in inputs.items():
            if set(group) <= set(names):
                weights = [linear.weight.detach() for linear in linears[group]]
                best = _smoothed(group, sample, weights, largest)
                with _rounded(linears[group], best, largest):
                    kl = head_divergence(head, head.weight, final, few.behind(index))
                smoothed.append(replace(best, kl=kl))
        walk.advance(index)
        few.advance(index)
    if HEAD in names:
        behind = Sample(largest=torch.zeros(walk.states.shape[-1]))
        for states in torch.split(walk.states, 1):
            _observe(behind, walk.final(states))
        best = _smoothed((HEAD,), behind, [head.weight.detach()], largest)
        scale = torch.from_numpy(best.factors)
        low = round_rows(head.weight * scale, largest) / scale
        kl = head_divergence(head, low, final, round_input(final / scale, best.per_token) * scale)
        smoothed.append(replace(best, kl=kl))
    return smoothed


@contextmanager
def _rounded(linears: Sequence[nn.Linear], smoothed: Smoothed, largest: int) -> Iterator[None]:
    """Layers that compute as in 8 bits, for as long as the context lasts."""
    scale = torch.from_numpy(smoothed.factors)

    def round_inputs(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (round_input(args[0] / scale, smoothed.per_token) * scale,)

    rounded = changed_weights(linears, lambda weight: round_rows(weight * scale, largest) / scale)
    with hooked(linear.register_forward_pre_hook(round_inputs) for linear in linears), rounded:
        yield


def _observe(sample: Sample, x: Tensor) -> None:
    """x (windows, tokens, channels)"""
    sample.largest = torch.maximum(sample.largest, x.abs().amax((0, 1)))
    sample.windows.extend(x[: max(0, COMPARED_WINDOWS - len(sample.windows))].clone())


def _smoothed(names: tuple[str, ...], sample: Sample, weights: Sequence[Tensor], largest: int) -> Smoothed:
    whole = torch.cat(list(weights))
    rows = whole[:: -(-len(whole) // COMPARED_ROWS)]
    peaks = whole.abs().amax(0).numpy()
    tried: dict[float | None, np.ndarray] = {None: np.ones(len(peaks), np.float32)}
    tried |= {alpha: factors(sample.largest.numpy(), peaks, alpha) for alpha in ALPHAS}
    sizes = [output_sizes(x, rows) for x in sample.windows]
    plain, scaled = (
        {
            alpha: sum(
                float((output_errors(x, rows, torch.from_numpy(s), largest, per_token) / size).sum())
                for x, size in zip(sample.windows, sizes, strict=True)
            )
            for alpha, s in tried.items()
        }
        for per_token in (False, True)
    )
    per_token = min(scaled.values()) < TOKEN_SCALES_LEAVE * min(plain.values())
    errors = scaled if per_token else plain
    best = min(errors, key=lambda alpha: errors[alpha])
    return Smoothed(names=names, alpha=best, factors=tried[best], per_token=per_token)


def output_errors(x: Tensor, weight: Tensor, scale: Tensor, largest: int, per_token: bool = False) -> Tensor:
    """Of each token, the squares that int8 loses of x (tokens, channels) @ weight.T (channels, rows)."""
    lost = round_input(x / scale, per_token) @ round_rows(weight * scale, largest).T - x @ weight.T
    return lost.square().sum(-1)


def output_sizes(x: Tensor, weight: Tensor) -> Tensor:
    """Of each token, what its error is to be seen against: norms make all tokens alike, so one that is a
    thousand times larger must not count a million times; one that is small is added to something large."""
    size = (x @ weight.T).square().sum(-1)
    return size + size.median()


def round_input(x: Tensor, per_token: bool = False) -> Tensor:
    """x (..., tokens, channels), each (tokens, channels) with one scale and zero point, as
    DynamicQuantizeLinear gives it; `per_token`: after `BlockGraph.scale_tokens`."""
    if per_token:
        size = x.abs().amax(-1, keepdim=True).clamp(min=TINY)
        return round_input(x / size) * size
    low, high = x.amin((-2, -1), keepdim=True).clamp(max=0), x.amax((-2, -1), keepdim=True).clamp(min=0)
    step = ((high - low) / 255).clamp(min=1e-12)
    zero = torch.round(-low / step)
    return ((torch.round(x / step) + zero).clamp(0, 255) - zero) * step


def round_rows(weight: Tensor, largest: int) -> Tensor:
    """Integers up to `largest`, one scale a row (rows, channels)."""
    steps = (weight.abs().amax(1, keepdim=True) / largest).clamp(min=1e-12)
    return torch.round(weight / steps) * steps
