"""Files in 16-bit floats on every runtime: a right one passes parity, a wrong kernel of it is named."""

import re

import pytest

from compress.benchmark.parity import check, check_inputs
from compress.config.quantize import Float16, Float16Blocks
from compress.config.target import BrowserProvider, BrowserTarget, LocalTarget, NodeTarget
from compress.data import load_splits
from compress.errors import BenchmarkError, GateError
from compress.graph import named_graphs
from compress.quantize import quantize
from compress.targets import browser, open_target
from compress.tasks import open_processor
from tests.benchmark.faults import WrongOn, node_of, rolled, swapped, transposed_weights, with_attributes
from tests.targets.kinds import OPENVINO

OPTIONS = {"fp16": Float16(), "q4f16": Float16Blocks(block_size=16)}
# of what a tiny model's operators are, by name: operator, which one, and what is wrong
WRONG = {
    "fp16": [("MatMul", 3, transposed_weights), ("LayerNormalization", 2, with_attributes(epsilon=0.3))],
    "q4f16": [("MatMulNBits", 2, rolled(2, 0)), ("Div", 0, swapped(0, 1))],
}


@pytest.fixture(params=OPTIONS)
def made(request, once, graphs, checkpoints, splits_folder):
    """The name of an option, the graphs that it makes of an encoder, and their inputs."""

    def build(out):
        quantize(OPTIONS[request.param], ["avx2"], graphs("bert"), checkpoints["bert"], splits_folder, out)

    folder = once(f"float16-{request.param}", build)
    examples = load_splits(splits_folder).calibration.examples
    feeds = check_inputs(open_processor(checkpoints["bert"]), examples, ["1x8", "2x16"])
    return request.param, named_graphs(folder), feeds


@pytest.mark.parametrize(
    "kind",
    [
        LocalTarget,
        NodeTarget,
        pytest.param(BrowserTarget, marks=pytest.mark.slow),
        pytest.param(*OPENVINO.values, marks=[*OPENVINO.marks, pytest.mark.slow]),
    ],
)
def test_a_right_runtime_passes_and_a_wrong_kernel_is_named(made, kind):
    name, graphs, feeds = made
    target = open_target(kind(threads=1))
    [gate] = check(target, graphs, feeds, name)
    assert gate.passed
    assert gate.numbers["min_cosine"] > 1 - 1e-5
    if kind is LocalTarget:  # compared as a whole: there is nothing that could compute otherwise
        return
    assert gate.numbers["operators_alone"] > 50
    for op_type, number, change in WRONG[name]:
        node = node_of(graphs, op_type, number)
        with pytest.raises(GateError, match=re.escape(f"operator {op_type} {node!r}")):
            check(WrongOn(target, node, change), graphs, feeds, name)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_webgpu_computes_the_same_and_says_where_a_gpu_has_no_16_bit_floats(made, graphs, monkeypatch):
    """Chromium's emulated GPU, which has none; `check_page` refuses it, since it is no faster than wasm."""
    monkeypatch.setattr(browser, "EMULATED", "no adapter of this name")
    monkeypatch.setitem(
        browser.FLAGS, "webgpu", ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"]
    )
    name, small, feeds = made
    target = open_target(BrowserTarget(threads=1, provider=BrowserProvider.webgpu))
    assert "swiftshader" in target.facts()["runtime"]["webgpu"]
    if name == "fp16":
        whole = named_graphs(graphs("bert"))
        [gate] = check(target, whole, feeds, "float32")
        assert gate.passed
        assert gate.numbers["operators_alone"] > 50
        node = node_of(whole, "Gelu", 0)
        with pytest.raises(GateError, match=re.escape(f"operator Gelu {node!r}")):
            check(WrongOn(target, node, with_attributes(approximate="tanh")), whole, feeds, "float32")
    with pytest.raises(BenchmarkError, match=r"requires f16(.|\n)*next:.*16-bit floats"):
        check(target, small, feeds, name)
