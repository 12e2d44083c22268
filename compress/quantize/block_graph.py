"""Blocks of integers put into the ONNX graph of a language model.

A layer of the checkpoint is found in the graph by its numbers: exporters rename, transpose and join
matrices, but do not change them. Weights are read one at a time from where the file maps them.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from compress.graph import graph_path
from compress.graph.surgery import drop_dead, needed, reads, replace_nodes
from compress.graph.weights import SMALL, Weights, is_external
from compress.quantize.blocks import Blocks, pack, rows_of, stacked
from compress.quantize.query_scale import scale_queries
from compress.quantize.smoothing import divide_input, multiply_rows

MICROSOFT = "com.microsoft"
INLINE_BYTES = 1_000_000_000  # a message of protobuf holds no more than 2 GB
TINY = 1e-12  # the least that a token is divided by


@dataclass(frozen=True, kw_only=True)
class Product:
    """A MatMul that computes rows of linear layers side by side: whole layers, but for Phi-3's gate_up."""

    node: str
    parts: tuple[tuple[str, int, int], ...]  # layer, first row, row behind the last

    @property
    def linears(self) -> set[str]:
        return {name for name, _, _ in self.parts}


class BlockGraph:
    """The graph in `folder`, to be changed and saved elsewhere."""

    def __init__(
        self,
        folder: Path,
        linears: Mapping[str, np.ndarray],
        embedding: np.ndarray,
        out: Path | None = None,
    ) -> None:
        """`linears`: name of each linear layer of the checkpoint -> weight (rows, columns); `embedding`
        (tokens, width). Where it is known that the result will be saved to `out`, what is new waits there,
        not in memory."""
        self.model = onnx.load(graph_path(folder), load_external_data=False)
        self.graph = self.model.graph
        sink = None if out is None else graph_path(out).with_name(f"{graph_path(out).name}_data")
        self.weights = Weights(self.graph, "/scaled", folder, sink)
        for tensor in self.graph.initializer:
            if is_external(tensor) and (values := self.weights.read(tensor)).nbytes <= SMALL:
                tensor.CopyFrom(numpy_helper.from_array(np.array(values), tensor.name))
        self.rows: dict[str, int] = {}
        self.products = self._find_products(linears)
        self.tables = [  # names of the Gathers that read the embedding
            node.name
            for node in self.graph.node
            if node.op_type == "Gather"
            and (table := self.weights.matrix(node.input[0])) is not None
            and table.shape == embedding.shape
            and np.array_equal(table, embedding)
        ]

    def _find_products(self, linears: Mapping[str, np.ndarray]) -> list[Product]:
        """The MatMuls whose constant is the transposed weight (rows, columns) of one layer or of several."""
        by_row: dict[bytes, list[tuple[str, int]]] = {}
        for name, weight in linears.items():
            self.rows[name] = len(weight)
            for start in (0, len(weight) // 2):  # exporters cut Phi-3's gate_up in two
                by_row.setdefault(_bytes(weight[start]), []).append((name, start))
        products = []
        for node in self.graph.node:
            constant = self.weights.matrix(node.input[1]) if node.op_type == "MatMul" else None
            if constant is not None and (parts := _parts(constant.T, linears, by_row)):
                products.append(Product(node=node.name, parts=parts))
        return products

    def computing(self, names: Collection[str]) -> list[Product]:
        """The products of these layers alone; empty where they do not compute all of them."""
        products = [product for product in self.products if product.linears <= set(names)]
        covered = sum(stop - start for product in products for _, start, stop in product.parts)
        return products if covered == sum(self.rows[name] for name in names) else []

    def left_out(self, names: Collection[str]) -> list[str]:
        """Names of the MatMuls that compute other layers too."""
        return [product.node for product in self.products if not product.linears <= set(names)]

    def put_products(self, blocks: Mapping[str, Blocks], level: int) -> None:
        """MatMulNBits in place of the MatMuls whose layers have blocks."""
        nodes = {node.name: node for node in self.graph.node}
        for product in self.products:
            if product.linears <= set(blocks):
                whole = stacked([rows_of(blocks[name], *rows) for name, *rows in product.parts])
                name, start, _ = product.parts[0]
                node = nodes[product.node]
                replacement = helper.make_node(
                    "MatMulNBits",
                    [node.input[0], *self._put(f"{name}.{start}" if start else name, whole)],
                    list(node.output),
                    node.name,
                    domain=MICROSOFT,
                    K=whole.columns,
                    N=len(whole.codes),
                    bits=whole.bits,
                    block_size=whole.size,
                    accuracy_level=level,
                )
                node.CopyFrom(replacement)

    def put_tables(self, name: str, blocks: Blocks) -> None:
        """What reads the embedding reads the initializers of the layer `name` instead; nothing where nothing
        reads it.

        Bytes are looked up by standard operators, which give the same numbers as GatherBlockQuantized: that
        one wants them in a shape of its own, and where a head shares them OpenVINO does not read its file.
        """
        if not self.tables:
            return
        packed = self._put(name, blocks)
        nodes: list[onnx.NodeProto] = []
        of_tables = {
            n.output[0]: n for n in self.graph.node if n.op_type == "Gather" and n.name in self.tables
        }
        for node in self.graph.node:
            if node.op_type == "Cast" and node.input[0] in of_tables:  # what is in their place gives float32
                of_tables[node.input[0]].output[0] = node.output[0]
        for node in self.graph.node:
            if node.op_type == "Cast" and node.output[0] in {n.output[0] for n in of_tables.values()}:
                continue
            if node.op_type == "Gather" and node.name in self.tables:
                nodes += (
                    self._bytes_of_rows(node, packed)
                    if blocks.bits == 8
                    else self._rows(node, packed, blocks)
                )
            else:
                nodes.append(node)
        replace_nodes(self.graph, nodes)

    def _bytes_of_rows(self, gather: onnx.NodeProto, packed: Sequence[str]) -> list[onnx.NodeProto]:
        """(codes - zeros) * scales of the rows of tokens (batch, length), from codes (rows, blocks, size)."""
        last = self.weights.put(f"{gather.name}/last", np.array([-1]))
        shape = self.weights.put(f"{gather.name}/shape", np.array([0, 0, -1]))

        def made(op_type: str, given: Sequence[str], result: str, **attributes: Any) -> onnx.NodeProto:
            return helper.make_node(
                op_type, given, [f"{gather.name}/{result}"], f"{gather.name}/{result}", **attributes
            )

        nodes = []
        for part, source in zip(("codes", "scales", "zeros"), packed, strict=True):
            nodes.append(made("Gather", [source, gather.input[1]], part))
            if part != "codes":
                nodes.append(made("Unsqueeze", [f"{gather.name}/{part}", last], f"{part}/of_blocks"))
        floats = [(f"{gather.name}/codes", "codes/float"), (f"{gather.name}/zeros/of_blocks", "zeros/float")]
        nodes += [made("Cast", [given], result, to=onnx.TensorProto.FLOAT) for given, result in floats]
        nodes += [
            made("Sub", [f"{gather.name}/codes/float", f"{gather.name}/zeros/float"], "steps"),
            made("Mul", [f"{gather.name}/steps", f"{gather.name}/scales/of_blocks"], "blocks"),
            helper.make_node("Reshape", [f"{gather.name}/blocks", shape], list(gather.output), gather.name),
        ]
        return nodes

    def _rows(self, gather: onnx.NodeProto, packed: Sequence[str], blocks: Blocks) -> list[onnx.NodeProto]:
        codes, scales, zeros = packed
        flat = f"{gather.name}/table"
        shape = self.weights.put(
            f"{flat}/shape", np.array([len(blocks.codes), blocks.columns * blocks.bits // 8])
        )
        return [
            helper.make_node("Reshape", [codes, shape], [flat], flat),
            helper.make_node(
                "GatherBlockQuantized",
                [flat, gather.input[1], scales, zeros],
                list(gather.output),
                gather.name,
                domain=MICROSOFT,
                bits=blocks.bits,
                block_size=blocks.size,
                gather_axis=0,
                quantize_axis=1,
            ),
        ]

    def divide_input(self, products: Sequence[Product], factors: np.ndarray) -> None:
        """Divide what these products read by `factors` (channels,), whose inverse is in their weights."""
        suffixes = "/divided", "/divided/inverse"
        divide_input(self.weights, self._nodes(products), factors, suffixes, ["Shape"])

    def _nodes(self, products: Sequence[Product]) -> list[onnx.NodeProto]:
        names = {product.node for product in products}
        return [node for node in self.graph.node if node.name in names]

    def scale_tokens(self, products: Sequence[Product]) -> None:
        """Divide each token these products read by its largest magnitude, and multiply what they make."""
        names = {product.node for product in products}
        tensor = self._nodes(products)[0].input[0]
        size, scaled = f"{tensor}/size", f"{tensor}/scaled"
        tiny = self.weights.put(f"{size}/tiny", np.array([TINY], np.float32))
        old = next(opset.version for opset in self.model.opset_import if not opset.domain) < 18
        axes = [] if old else [self.weights.put(f"{size}/axes", np.array([-1], np.int64))]
        scaling = [
            helper.make_node("Abs", [tensor], [f"{size}/abs"], f"{size}/abs"),
            helper.make_node("ReduceMax", [f"{size}/abs", *axes], [f"{size}/max"], f"{size}/max"),
            helper.make_node("Max", [f"{size}/max", tiny], [size], size),
            helper.make_node("Div", [tensor, size], [scaled], scaled),
        ]
        if old:
            scaling[1].attribute.append(helper.make_attribute("axes", [-1]))
        nodes = []
        for node in self.graph.node:
            if node.name not in names:
                nodes.append(node)
                continue
            nodes.extend(scaling)
            scaling = []
            result = node.output[0]
            part = f"{result}/of_scaled"
            node.input[0], node.output[0] = scaled, part
            nodes += [node, helper.make_node("Mul", [part, size], [result], f"{result}/whole")]
        replace_nodes(self.graph, nodes)

    def multiply_rows(self, products: Sequence[Product], factors: np.ndarray) -> None:
        """Multiply what the weights of these MatMuls do to each input channel."""
        for node in self._nodes(products):
            multiply_rows(self.weights, node, factors)

    def save(self, out: Path) -> Path:
        """Write the graph, with its weights beside it where they are large."""
        scale_queries(self.graph, self.weights)
        drop_dead(self.graph)
        if all(opset.domain != MICROSOFT for opset in self.model.opset_import):
            self.model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
        target, weights = graph_path(out), self.weights
        weights.sink = data = target.with_name(f"{target.name}_data")
        if sum(weights.read(tensor).nbytes for tensor in self.graph.initializer) <= INLINE_BYTES:
            for tensor in self.graph.initializer:
                if is_external(tensor):
                    tensor.CopyFrom(numpy_helper.from_array(np.array(weights.read(tensor)), tensor.name))
            data.unlink(missing_ok=True)
        else:
            weights.to_sink()
        onnx.save(self.model, target)
        return target

    def rest_bytes(self, names: Collection[str]) -> int:
        """Of the weights that stay when the products of these layers and the embedding are replaced."""
        gone = {product.node for product in self.products if product.linears <= set(names)} | {*self.tables}
        outputs = {value.name for value in self.graph.output}
        for node in self.graph.node:
            if node.name in gone:  # it still reads activations
                outputs |= {name for name in node.input if self.weights.matrix(name) is None}
        nodes = needed([node for node in self.graph.node if node.name not in gone], outputs)
        read = {name for node in nodes for name in reads(node)}
        return sum(self.weights[name].nbytes for name in self.weights.tensors if name in read)

    def _put(self, name: str, blocks: Blocks) -> list[str]:
        """Names of the initializers for codes, scales and zero points; those there already are shared."""
        names = [f"{name}.{part}" for part in ("codes", "scales", "zeros")]
        if names[0] not in self.weights:
            for key, value in zip(names, pack(blocks), strict=True):
                self.weights.add(key, value)
        return names


def _parts(
    weight: np.ndarray, linears: Mapping[str, np.ndarray], by_row: Mapping[bytes, Sequence[tuple[str, int]]]
) -> tuple[tuple[str, int, int], ...]:
    """The layers whose rows lie one under the other in `weight`; empty where a row belongs to none."""
    parts: list[tuple[str, int, int]] = []
    row = 0
    while row < len(weight):
        for name, start in by_row.get(_bytes(weight[row]), ()):
            own = linears[name]
            count = min(len(own) - start, len(weight) - row)
            part = (name, start, start + count)
            same = np.array_equal(weight[row : row + count], own[start : start + count])
            if same and part not in parts:
                parts.append(part)
                row += count
                break
        else:
            return ()
    return tuple(parts)


def _bytes(row: np.ndarray) -> bytes:
    return np.ascontiguousarray(row, np.float32).tobytes()
