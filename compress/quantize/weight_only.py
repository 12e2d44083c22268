"""Language models with their weights in blocks of integers: all in 8 bits, in 4, or each layer as it bears.

The products become onnxruntime's MatMulNBits; embedding and head of a tied model are stored once.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from compress.config.quantize import Int4Blocks, Int8Blocks, MixedBlocks
from compress.data import load_texts
from compress.errors import GateError
from compress.graph import graph_path
from compress.models.stored import in_float32
from compress.quantize import coverage, sqnr
from compress.quantize.bit_choice import bits_of, choose, sensitivities
from compress.quantize.block_graph import BlockGraph
from compress.quantize.blocks import Blocks, in_blocks
from compress.quantize.fidelity import check_divergence, check_windows, choose_level, windows_of
from compress.quantize.fit import fit
from compress.quantize.language_layers import (
    EMBEDDING,
    HEAD,
    check_block_size,
    chosen_layers,
    embedding_of,
    is_tied,
    weights_of,
)
from compress.quantize.layerwise import Recipe, Rounded, round_layers
from compress.schema.quantization import BitChoice, BlockFit, LayerError, WeightBlocks
from compress.stages.result import write_result
from compress.system.memory import give_back
from compress.tasks.language_modeling.model import CausalLM

_WINDOWS = 2  # of the calibration split, where rounding does not depend on the inputs: for the layers' errors


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What is left to know of the float model once it is gone from memory."""

    errors: tuple[LayerError, ...]
    bits: Mapping[str, int]
    choice: BitChoice | None
    fit: BlockFit | None
    excluded: list[str]  # nodes
    windows: int  # of calibration
    checked: Tensor  # windows (windows, tokens) for the gate


def quantize(
    config: Int8Blocks | MixedBlocks,
    cpu_flags: Sequence[str],
    graph: Path,
    checkpoint: Path,
    splits: Path,
    out: Path,
) -> None:
    """Raises ConfigError for a block size that does not divide a width, and where not even 4 bits everywhere
    fit into `max_size_mb`; GateError as `compress.quantize.quantize` says."""
    prepared = _round(config, graph, checkpoint, splits, out)
    give_back()
    target = graph_path(out)
    excluded = [re.escape(name) for name in prepared.excluded]
    coverage.check(coverage.measure(target, excluded), config.min_coverage, out)
    advice = "more bits, a smaller block, or quantize.exclude"
    sqnr.check(prepared.errors, config.min_sqnr_db, prepared.windows, out, advice)
    level = choose_level(graph_path(graph), target, prepared.checked, config.accuracy_level)
    told = WeightBlocks(bits=dict(prepared.bits), choice=prepared.choice, fit=prepared.fit, **level)
    write_result(out, facts={"blocks": told})
    check_divergence(level["kl"], config.max_kl, out)


def _round(
    config: Int8Blocks | MixedBlocks, graph: Path, checkpoint: Path, splits: Path, out: Path
) -> Prepared:
    """Round the layers and write the graph."""
    model, texts = CausalLM.open_stored(checkpoint), load_texts(splits)
    names = chosen_layers(model, config.exclude)
    check_block_size(model, names, config.block_size)
    opened = BlockGraph(graph, weights_of(model), in_float32(embedding_of(model)).numpy(), out)
    choice: BitChoice | None = None
    if isinstance(config, MixedBlocks):
        few = windows_of(model, texts.calibration.texts, config.sensitivity_windows)
        sensitive = sensitivities(model, few, names, config)
        choice = choose(sensitive, opened.rest_bytes(names), config.max_size_mb, config.max_kl)
    recipe = _recipe(config, names, choice)
    count = config.windows if isinstance(config, Int4Blocks | MixedBlocks) else _WINDOWS
    windows = windows_of(model, texts.calibration.texts, count)
    table = _table(model, recipe)
    if table is not None:
        opened.put_tables(EMBEDDING, table)

    def put(rounded: Rounded) -> None:
        write(opened, rounded, config.accuracy_level)
        if HEAD in rounded.blocks and table is None:
            opened.put_tables(HEAD, rounded.blocks[HEAD])

    done: list[Rounded] = []
    errors = round_layers(model, windows, recipe, table, done.append if config.fit_steps else put)
    fitted: BlockFit | None = None
    if config.fit_steps:
        done, fitted = fit(config, checkpoint, texts, done, table, out)
        for rounded in done:
            put(rounded)
    opened.save(out)
    return Prepared(
        errors=tuple(sorted(errors, key=lambda error: error.alone_db)),
        bits=recipe.bits,
        choice=choice,
        fit=fitted,
        excluded=opened.left_out(recipe.bits),
        windows=len(windows),
        checked=check_windows(model, texts),
    )


def _recipe(config: Int8Blocks | MixedBlocks, names: Sequence[str], choice: BitChoice | None) -> Recipe:
    if choice is not None:
        bits = bits_of(choice)
    elif isinstance(config, Int4Blocks):
        bits = {name: config.head_bits if name == HEAD else 4 for name in names}
    else:
        bits = dict.fromkeys(names, 8)
    if not isinstance(config, Int4Blocks | MixedBlocks):
        return Recipe(bits=bits, size=config.block_size)
    return Recipe(bits=bits, size=config.block_size, method=config.method, clip=config.clip, awq=config.awq)


def write(opened: BlockGraph, rounded: Rounded, level: int) -> None:
    """Put the blocks into the graph."""
    for names, factors in rounded.factors.items():
        products = opened.computing(names)
        if not products:
            raise GateError(
                "the graph does not hold the layers of the checkpoint",
                found=f"no MatMul with the weights of {', '.join(names)}",
                next="quantize.awq=false and quantize.fit_steps=0, or another export",
            )
        opened.divide_input(products, factors.numpy())
    opened.put_products(rounded.blocks, level)


def _table(model: CausalLM, recipe: Recipe) -> Blocks | None:
    """The embedding of a model whose head is another matrix, in 8 bits; None where the head stores it."""
    weight = embedding_of(model).detach()
    if is_tied(model) or HEAD not in recipe.bits or weight.shape[1] % recipe.size:
        return None
    return in_blocks(weight, recipe.bits[HEAD], recipe.size, recipe.bits[HEAD] == 4)
