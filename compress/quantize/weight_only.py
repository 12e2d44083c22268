"""Language models with their weights in blocks of integers: all in 8 bits, in 4, or each layer as it bears.

The products become onnxruntime's MatMulNBits; embedding and head of a tied model are stored once.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from compress.config.quantize import Int4Blocks, Int8Blocks, MixedBlocks
from compress.data import load_texts
from compress.errors import GateError
from compress.models import load_causal_lm
from compress.quantize import coverage, sqnr
from compress.quantize.bit_choice import choose_bits
from compress.quantize.block_graph import BlockGraph, Product, computing
from compress.quantize.blocks import Blocks, in_blocks
from compress.quantize.fidelity import check_divergence, check_windows, choose_level, windows_of
from compress.quantize.language_layers import (
    EMBEDDING,
    HEAD,
    check_block_size,
    chosen_layers,
    embedding_of,
    is_tied,
    keep_companions,
    weights_of,
)
from compress.quantize.layerwise import Recipe, Rounded, round_layers
from compress.schema.report import LayerError
from compress.stages.result import write_result
from compress.system.memory import give_back

Plan = tuple[Recipe, dict[str, Any]]  # and what stage.json says of how it was chosen


def quantize(
    config: Int8Blocks, cpu_flags: Sequence[str], graph: Path, checkpoint: Path, splits: Path, out: Path
) -> None:
    """Raises ConfigError for a block size that does not divide a width, GateError as `quantize` says."""
    _quantize(config, lambda model: (_recipe(config, model), {}), graph, checkpoint, splits, out)


def _recipe(config: Int8Blocks, model: Any) -> Recipe:
    names = chosen_layers(model, config.exclude)
    if isinstance(config, Int4Blocks):
        bits = {name: config.head_bits if name == HEAD else 4 for name in names}
        return Recipe(
            bits=bits, size=config.block_size, method=config.method, clip=config.clip, awq=config.awq
        )
    return Recipe(bits=dict.fromkeys(names, 8), size=config.block_size)


def quantize_mixed(
    config: MixedBlocks, cpu_flags: Sequence[str], graph: Path, checkpoint: Path, splits: Path, out: Path
) -> None:
    """Raises ConfigError where not even 4 bits everywhere fit into `max_size_mb`."""
    _quantize(config, lambda model: _mixed(config, model, graph, splits), graph, checkpoint, splits, out)


def _mixed(config: MixedBlocks, model: Any, graph: Path, splits: Path) -> Plan:
    names = chosen_layers(model, config.exclude)
    check_block_size(model, names, config.block_size)
    opened = BlockGraph(graph)
    products = opened.products(weights_of(model))
    rest = opened.rest_bytes([p.node for p in products if p.linears <= set(names)], _tables(opened, model))
    windows = windows_of(model, load_texts(splits).calibration.texts, config.sensitivity_windows)
    choice = choose_bits(model, windows, names, config, rest)
    recipe = Recipe(
        bits=choice.bits, size=config.block_size, method=config.method, clip=config.clip, awq=config.awq
    )
    return recipe, {"choice": choice.facts()}


@dataclass(frozen=True, kw_only=True)
class Made:
    """What is left to know of the float model once it is gone from memory."""

    errors: tuple[LayerError, ...]
    facts: dict[str, Any]
    excluded: tuple[str, ...]  # nodes
    windows: int  # of calibration
    checked: Tensor  # windows (windows, tokens) for the gate


def _quantize(
    config: Int8Blocks | MixedBlocks,
    plan: Callable[[Any], Plan],
    graph: Path,
    checkpoint: Path,
    splits: Path,
    out: Path,
) -> None:
    """Round, write the graph, and prove it."""
    made = _make(config, plan, graph, checkpoint, splits, out)
    give_back()
    keep_companions(graph, out)
    target = out / "model.onnx"
    coverage.check(
        coverage.measure(target, [re.escape(name) for name in made.excluded]), config.min_coverage, out
    )
    sqnr.check(
        made.errors, config.min_sqnr_db, made.windows, out, "more bits, a smaller block, or quantize.exclude"
    )
    level = choose_level(graph / "model.onnx", target, made.checked, config.accuracy_level)
    write_result(out, facts={"blocks": {**level, **made.facts, "windows": made.windows}})
    check_divergence(level["kl"], config.max_kl, out)


def _make(
    config: Int8Blocks | MixedBlocks,
    plan: Callable[[Any], Plan],
    graph: Path,
    checkpoint: Path,
    splits: Path,
    out: Path,
) -> Made:
    model = load_causal_lm(checkpoint)
    recipe, facts = plan(model)
    check_block_size(model, recipe.bits, recipe.size)
    texts = load_texts(splits)
    windows = windows_of(model, texts.calibration.texts, getattr(config, "windows", 2))
    opened = BlockGraph(graph)
    products = opened.products(weights_of(model))  # by the weights as they are now
    tables = _tables(opened, model)
    table = _table(model, recipe)
    rounded = round_layers(model, windows, recipe)
    write(opened, products, tables, rounded, table, config.accuracy_level, out)
    return Made(
        errors=tuple(sorted(rounded.errors, key=lambda error: error.alone_db)),
        facts={"bits": dict(recipe.bits), **facts},
        excluded=tuple(p.node for p in products if not p.linears <= set(recipe.bits)),
        windows=len(windows),
        checked=check_windows(model, texts),
    )


def write(
    opened: BlockGraph,
    products: Sequence[Product],
    tables: Sequence[str],
    rounded: Rounded,
    table: Blocks | None,
    level: int,
    out: Path,
) -> Path:
    """Put the blocks into the graph and save it as `out/model.onnx`."""
    for names, factors in rounded.factors.items():
        read = computing(products, {name: len(rounded.blocks[name].codes) for name in names})
        if not read:
            raise GateError(
                "the graph does not hold the layers of the checkpoint",
                found=f"no MatMul with the weights of {', '.join(names)}",
                next="quantize.awq=false, or another export",
            )
        opened.divide_input(read, factors.numpy())
    opened.put_products(products, rounded.blocks, level)
    if tables and table is not None:
        opened.put_tables(tables, EMBEDDING, table)
    elif tables and HEAD in rounded.blocks:
        opened.put_tables(tables, HEAD, rounded.blocks[HEAD])
    return opened.save(out)


def _tables(opened: BlockGraph, model: Any) -> list[str]:
    return opened.tables(embedding_of(model).detach().numpy())


def _table(model: Any, recipe: Recipe) -> Blocks | None:
    """The embedding of a model whose head is another matrix, in 8 bits; None where the head stores it."""
    weight = embedding_of(model).detach()
    if is_tied(model) or HEAD not in recipe.bits or weight.shape[1] % recipe.size:
        return None
    blocks = in_blocks(weight, recipe.bits[HEAD], recipe.size, recipe.bits[HEAD] == 4)
    embedding_of(model).data = blocks.weight()
    return blocks
