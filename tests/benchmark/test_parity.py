"""A wrong kernel on the target is caught before anything is timed, and named; a right one passes."""

import re
from functools import partial

import onnx
import pytest

from compress.benchmark import parity
from compress.benchmark.parity import check, check_inputs
from compress.config.export import TorchExport
from compress.config.quantize import Int4Blocks, Int8Dynamic, Int8Smooth, Int8Static
from compress.config.target import LocalTarget
from compress.data import load_splits
from compress.errors import GateError
from compress.export import export
from compress.graph import named_graphs
from compress.quantize import quantize
from compress.targets import open_target
from compress.targets.outputs import outputs
from compress.tasks import open_processor
from tests.benchmark.faults import (
    Planted,
    another,
    flipped_kernel,
    index_off_by_one,
    node_of,
    pairs_saturate,
    rolled,
    swapped,
    transposed_weights,
    truncated,
    with_attributes,
    without,
)

VNNI = ["avx2", "avx512f", "avx512_vnni", "avx_vnni"]
TEXT, IMAGES, TOKENS = ("1x8", "2x16"), ("1x8",), ("1x24", "1x1+24")


@pytest.fixture(scope="session")
def made(request, once):
    """Name -> folder of graphs, their inputs; made when first asked for."""
    ask = request.getfixturevalue

    def texts():
        return ask("checkpoints")["bert"], ask("splits_folder"), TEXT

    def images(net):
        return ask("image_checkpoints")[net], ask("image_splits_folder"), IMAGES

    def language():
        return ask("language_checkpoints")["llama"], ask("splits_folder"), TOKENS

    def small(option, graph, of):
        checkpoint, splits, _ = of

        def build(out):
            quantize(option, VNNI, graph, checkpoint, splits, out)

        return once(f"parity-{type(option).__name__}-{checkpoint.name}", build)

    def old():
        def build(out):
            export(TorchExport(opset=18, fuse=False), texts()[0], texts()[1], out)

        return once("parity-opset18", build)

    kinds = {
        "encoder": lambda: (ask("graphs")("bert"), texts()),
        "encoder, plain": lambda: (ask("graphs")("bert", False), texts()),
        "encoder, opset 18": lambda: (old(), texts()),
        "encoder, int8": lambda: (small(Int8Dynamic(), ask("graphs")("bert"), texts()), texts()),
        "encoder, static": lambda: (small(Int8Static(), ask("graphs")("bert"), texts()), texts()),
        "resnet": lambda: (ask("image_graphs")["resnet"], images("resnet")),
        "depthwise": lambda: (ask("image_graphs")["depthwise"], images("depthwise")),
        "vit": lambda: (ask("image_graphs")["vit"], images("vit")),
        "resnet, static": lambda: (
            small(Int8Static(), ask("image_graphs")["resnet"], images("resnet")),
            images("resnet"),
        ),
        "language": lambda: (ask("language_graphs")("llama"), language()),
        "language, plain": lambda: (ask("language_graphs")("llama", False), language()),
        "language, int8": lambda: (
            small(Int8Smooth(), ask("language_graphs")("llama"), language()),
            language(),
        ),
        "language, int4": lambda: (
            small(Int4Blocks(block_size=16), ask("language_graphs")("llama"), language()),
            language(),
        ),
    }

    def get(name):
        folder, (checkpoint, splits, workloads) = kinds[name]()
        examples = load_splits(splits).calibration.examples
        return named_graphs(folder), check_inputs(open_processor(checkpoint), examples, workloads)

    return get


slow = partial(pytest.param, marks=pytest.mark.slow)
FAULTS = [
    ("encoder", "Gelu", 0, with_attributes(approximate="tanh")),
    ("encoder", "LayerNormalization", 1, with_attributes(epsilon=1e-3)),
    ("encoder", "Attention", 1, without(3)),
    ("encoder", "Attention", 0, with_attributes(scale=0.4)),
    ("encoder", "Gather", 0, index_off_by_one),
    ("encoder", "MatMul", 3, transposed_weights),
    ("encoder", "ReduceL2", 0, another("ReduceL1")),
    ("encoder", "Div", 0, swapped(0, 1)),
    ("encoder, plain", "Transpose", 0, rolled(0, 1)),
    ("encoder, plain", "LayerNormalization", 4, without(2)),
    slow("encoder, opset 18", "Softmax", 1, with_attributes(axis=-2)),
    slow("encoder, opset 18", "Erf", 0, another("Tanh")),
    ("encoder, int8", "MatMulInteger", 3, pairs_saturate),
    ("encoder, int8", "MatMulInteger", 2, without(2)),
    ("encoder, int8", "DynamicQuantizeLinear", 1, truncated),
    ("encoder, int8", "LayerNormalization", 2, with_attributes(epsilon=1e-3)),
    ("encoder, int8", "Gelu", 1, with_attributes(approximate="tanh")),
    slow("encoder, static", "QuantizeLinear", 3, truncated),
    slow("encoder, static", "DequantizeLinear", 19, without(2)),
    slow("encoder, static", "MatMul", 3, transposed_weights),
    ("resnet", "Conv", 2, with_attributes(pads=[2, 2, 0, 0])),
    ("resnet", "Conv", 0, without(2)),
    ("resnet", "Relu", 1, another("LeakyRelu", alpha=0.01)),
    ("resnet", "GlobalAveragePool", 0, another("GlobalMaxPool")),
    ("resnet", "Gemm", 0, with_attributes(alpha=1.01)),
    ("depthwise", "Conv", 1, flipped_kernel),
    ("vit", "Gelu", 0, with_attributes(approximate="tanh")),
    ("vit", "Attention", 1, with_attributes(scale=0.6)),
    slow("resnet, static", "Conv", 1, with_attributes(pads=[0, 0, 2, 2])),
    slow("resnet, static", "QuantizeLinear", 1, truncated),
    ("language", "GroupQueryAttention", 0, rolled(7, 0)),
    ("language", "GroupQueryAttention", 1, with_attributes(rotary_interleaved=1)),
    ("language", "SkipSimplifiedLayerNormalization", 2, with_attributes(epsilon=1e-3)),
    ("language", "Sigmoid", 1, another("HardSigmoid")),
    ("language, plain", "RotaryEmbedding", 0, rolled(1, 1)),
    ("language, plain", "Attention", 0, without(3)),
    ("language, plain", "RMSNormalization", 2, with_attributes(epsilon=1e-3)),
    slow("language, int8", "MatMulInteger", 4, pairs_saturate),
    slow("language, int4", "MatMulNBits", 3, rolled(2, 0)),
]


@pytest.mark.parametrize(("kind", "op_type", "number", "change"), FAULTS)
def test_a_wrong_kernel_is_named(made, kind, op_type, number, change):
    graphs, feeds = made(kind)
    name = node_of(graphs, op_type, number)
    with pytest.raises(GateError, match=re.escape(f"operator {op_type} {name!r}")):
        check(Planted(name, change), graphs, feeds, "model")


KINDS = [
    *("encoder", "encoder, plain", "encoder, int8"),
    *("resnet", "depthwise", "vit", "language", "language, plain"),
    *(
        slow(name)
        for name in (
            "encoder, opset 18",
            "encoder, static",
            "resnet, static",
            "language, int8",
            "language, int4",
        )
    ),
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_right_runtime_passes(made, kind):
    graphs, feeds = made(kind)
    [gate] = check(Planted("no such node", without(0)), graphs, feeds, "model")
    assert gate.passed
    assert gate.numbers["min_cosine"] > 1 - 1e-6
    assert gate.numbers["operators_alone"] > 5


class OnlyFused(Planted):
    """Wrong where it computes the node in one with what reads it."""

    def applies(self, path):
        model = onnx.load(path, load_external_data=False)
        [node] = [node for node in model.graph.node if node.name == self.name]
        return node.output[0] not in [value.name for value in model.graph.output]


def test_a_kernel_that_is_wrong_with_its_neighbours_is_found_by_halves(made):
    """What it gives is right where a session is asked for it; the first wrong value is the next one's."""
    graphs, feeds = made("encoder")
    name = node_of(graphs, "Gelu", 1)
    after = node_of(graphs, "MatMul", -1)
    with pytest.raises(
        GateError, match=re.escape(f"operator MatMul {after!r}, the first in the whole graph")
    ):
        check(OnlyFused(name, with_attributes(approximate="tanh")), graphs, feeds, "model")


def test_numbers_that_are_not_numbers_are_refused(made):
    graphs, feeds = made("resnet")
    name = node_of(graphs, "Gemm", 0)
    with pytest.raises(GateError, match="NaN, infinity or another shape"):
        check(Planted(name, with_attributes(alpha=float("nan"))), graphs, feeds, "model")


@pytest.mark.parametrize("threads", [1, 2])
def test_this_machine_agrees_with_itself_by_two_sessions(made, threads, monkeypatch):
    monkeypatch.setattr(parity, "outputs", outputs)  # by a worker
    graphs, feeds = made("encoder, int8")
    [gate] = check(open_target(LocalTarget(threads=threads)), graphs, feeds, "small")
    assert gate.name == "the target computes what onnxruntime computes here"
    assert gate.numbers["min_cosine"] > 1 - 1e-9
    assert gate.numbers["operators_alone"] == 0
