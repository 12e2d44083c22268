"""The operators of convolutional ONNX graphs, in torch."""

from collections.abc import Callable, Sequence
from typing import Any

import onnx
import torch
from torch import Tensor
from torch.nn import functional

from compress.errors import ModelError
from compress.graph import surgery

Attributes = dict[str, Any]
_ROUNDING = ("QuantizeLinear", "DequantizeLinear")


def _padding(attributes: Attributes) -> list[int]:
    """Of each axis; both sides have the same."""
    return list(attributes.get("pads", [0, 0])[:2])


def _convolve(attributes: Attributes, values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return functional.conv2d(
        values,
        weight,
        bias,
        stride=attributes.get("strides", [1, 1]),
        padding=_padding(attributes),
        dilation=attributes.get("dilations", [1, 1]),
        groups=attributes.get("group", 1),
    )


def _multiply(attributes: Attributes, values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return functional.linear(values, weight if attributes.get("transB") else weight.T, bias)


def _max_pool(attributes: Attributes, values: Tensor) -> Tensor:
    strides = attributes.get("strides", [1, 1])
    return functional.max_pool2d(values, attributes["kernel_shape"], strides, _padding(attributes))


def _average_pool(attributes: Attributes, values: Tensor) -> Tensor:
    return functional.avg_pool2d(
        values,
        attributes["kernel_shape"],
        attributes.get("strides", [1, 1]),
        _padding(attributes),
        count_include_pad=bool(attributes.get("count_include_pad")),
    )


_OPERATORS: dict[str, Callable[..., Tensor]] = {
    "Conv": _convolve,
    "Gemm": _multiply,
    "Relu": lambda _, values: torch.relu(values),
    "Clip": lambda _, values, low=None, high=None: torch.clamp(values, low, high),
    "Add": lambda _, left, right: left + right,
    "Concat": lambda attributes, *values: torch.cat(values, attributes["axis"]),
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda _, values: values.mean((2, 3), keepdim=True),
    "Flatten": lambda _, values: values.flatten(1),
    "Identity": lambda _, values: values,
}
# What an attribute has to be where it is given, for `run_node` to be right.
_ONLY: dict[str, dict[str, Callable[[Any], bool]]] = {
    "Gemm": {"transA": lambda flag: not flag, "alpha": lambda x: x == 1, "beta": lambda x: x == 1},
    "MaxPool": {"ceil_mode": lambda flag: not flag, "dilations": lambda steps: set(steps) == {1}},
    "AveragePool": {"ceil_mode": lambda flag: not flag, "dilations": lambda steps: set(steps) == {1}},
    "Flatten": {"axis": lambda axis: axis == 1},
}
_WINDOW: dict[str, Callable[[Any], bool]] = {
    "kernel_shape": lambda sizes: len(sizes) == 2,
    "pads": lambda pads: len(pads) == 4 and pads[:2] == pads[2:],
    "auto_pad": lambda kind: kind == b"NOTSET",
}


def run_node(node: onnx.NodeProto, inputs: Sequence[Tensor | None]) -> Tensor:
    """What the node gives; None is an input left open."""
    return _OPERATORS[node.op_type](surgery.attributes(node), *inputs)


def check_nodes(graph: onnx.GraphProto) -> None:
    """Raises ModelError for an operator, or a use of one, that `run_node` does not compute."""
    for node in graph.node:
        if node.op_type in _ROUNDING:
            continue
        if node.op_type not in _OPERATORS:
            raise cannot_train(node, ", ".join(sorted(_OPERATORS)))
        rules = _ONLY.get(node.op_type, {})
        if node.op_type in ("Conv", "MaxPool", "AveragePool"):
            rules = {**rules, **_WINDOW}
        for name, value in surgery.attributes(node).items():
            if not rules.get(name, lambda _: True)(value):
                raise cannot_train(
                    node, "two axes, padded alike on both sides, rounded down", f" with {name}={value}"
                )


def cannot_train(node: onnx.NodeProto, allowed: str, more: str = "") -> ModelError:
    return ModelError(
        "quantize=int8_qat cannot train this net",
        found=f"{node.op_type}{more} ({node.name})",
        allowed=allowed,
        next="quantize=int8_static works on any net that can be exported",
    )
