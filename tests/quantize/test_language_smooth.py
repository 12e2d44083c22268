"""SmoothQuant on language models: the float graph stays what it was, and int8 comes nearer."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from compress.config.quantize import Int8Smooth
from compress.graph.decoder import Decoder
from compress.quantize import quantize
from compress.quantize.block_graph import BlockGraph
from compress.quantize.language_layers import embedding_of, weights_of
from compress.quantize.language_smooth import Sample, _smoothed, output_errors, round_input, search
from compress.schema.quantization import Coverage
from compress.stages.result import read_result
from compress.tasks.language_modeling.model import CausalLM

BOTH = [  # exporters
    *(("llama", True), ("phi3", True)),
    *(pytest.param(name, False, marks=pytest.mark.slow) for name in ("llama", "phi3")),
]


@pytest.mark.parametrize(
    ("name", "fused"),
    [("llama", True), ("gemma3_text", True), pytest.param("qwen2", False, marks=pytest.mark.slow)],
)
def test_products_become_integer_and_the_model_stays_near(
    name, fused, language_graphs, language_checkpoints, splits_folder, tmp_path
):
    graph = language_graphs(name, fused)
    config = Int8Smooth(windows=4, max_kl=1.0, layer_kl=1.0)
    quantize(config, ("avx512_vnni",), graph, language_checkpoints[name], splits_folder, tmp_path)
    assert read_result(tmp_path).fact("coverage", Coverage).coverage_macs == 1.0
    assert read_result(tmp_path).gates[-1].numbers["kl"] < 0.3
    assert len(read_result(tmp_path).facts["smoothing"]) == 2 * 4 + 1
    nodes = onnx.load(tmp_path / "model.onnx").graph.node
    assert sum(node.op_type == "MatMulInteger" for node in nodes) >= 2 * 4 + 1
    assert any(node.op_type == "Gather" and node.input[0].endswith(".codes") for node in nodes)
    assert not list(tmp_path.glob("tmp*"))


def test_layers_that_do_not_bear_it_get_blocks(
    language_graphs, language_checkpoints, splits_folder, tmp_path
):
    graph, checkpoint = language_graphs("llama"), language_checkpoints["llama"]
    kl = {}
    for limit in (1.0, 1e-9):
        out = tmp_path / str(limit)
        out.mkdir()
        config = Int8Smooth(windows=4, max_kl=1.0, layer_kl=limit)
        quantize(config, ("avx512_vnni",), graph, checkpoint, splits_folder, out)
        nodes = onnx.load(out / "model.onnx").graph.node
        groups = sum(group["blocks"] for group in read_result(out).facts["smoothing"])
        assert groups == (0 if limit == 1.0 else 2 * 4 + 1)
        assert sum(node.op_type == "MatMulInteger" for node in nodes) == (0 if groups else 2 * 4 + 1)
        assert sum(node.op_type == "MatMulNBits" for node in nodes) == (2 * 4 + 1 if groups else 0)
        assert read_result(out).fact("coverage", Coverage).coverage_macs == 1.0
        kl[limit] = read_result(out).gates[-1].numbers["kl"]
    assert kl[1e-9] < kl[1.0]


def test_the_price_of_a_group_is_that_of_it_alone(language_checkpoints):
    """In another way: the whole model, its layers replaced by ones that round."""
    model = CausalLM.open(language_checkpoints["llama"])
    windows = torch.from_numpy(np.random.default_rng(0).integers(2, 200, (1, 24)))
    names = ["model.layers.0.mlp.down_proj"]
    (found,) = search(model, windows, names, 127)
    linear, scale = model.linears()[names[0]], torch.from_numpy(found.factors)
    step = (linear.weight * scale).abs().amax(1, keepdim=True) / 127
    weight = (linear.weight * scale / step).round() * step

    def rounded(module, args, output):
        x = args[0][0] / scale
        step = (x.max().clamp(min=0) - x.min().clamp(max=0)) / 255
        zero = (-x.min().clamp(max=0) / step).round()
        return (((x / step).round() + zero - zero) * step @ weight.T)[None]

    total = 0.0
    with torch.no_grad():
        for window in windows:
            p = model.module(window[None]).logits.log_softmax(-1)
            hook = linear.register_forward_hook(rounded)
            q = model.module(window[None]).logits.log_softmax(-1)
            hook.remove()
            total += float((p.exp() * (p - q))[:, ::4].sum()) / 6
    assert found.kl == pytest.approx(total, rel=0.05)


@pytest.mark.parametrize(("name", "fused"), BOTH)
def test_factors_in_the_weights_and_out_of_the_input_change_nothing(
    name, fused, language_graphs, language_checkpoints, tmp_path
):
    graph, model = language_graphs(name, fused), CausalLM.open(language_checkpoints[name])
    weights = weights_of(model)
    opened = BlockGraph(graph, weights, embedding_of(model).detach().numpy())
    muls = sum(node.op_type == "Mul" for node in opened.graph.node)
    rng = np.random.default_rng(0)
    groups = [
        ("q_proj", "k_proj", "v_proj", "qkv_proj"),
        ("o_proj",),
        ("gate_proj", "up_proj", "gate_up_proj"),
    ]
    for layer in (0, 1):
        for ends in [*groups, ("down_proj",)]:
            names = [n for n in weights if f"layers.{layer}." in n and n.rsplit(".", 1)[1] in ends]
            read = opened.computing(names)
            scale = rng.uniform(0.5, 2, weights[names[0]].shape[1]).astype(np.float32)
            opened.multiply_rows(read, scale)
            opened.divide_input(read, scale)
    after = sum(node.op_type == "Mul" for node in opened.graph.node)
    if name == "llama" and fused:  # the plain graph has one weight for all norms of a random model
        assert after == muls + 2  # in front of o_proj; norms and up_proj took in the rest
    opened.save(tmp_path)
    ids = np.arange(2, 14)
    before, found = (Decoder(path / "model.onnx", capacity=16).run(ids) for path in (graph, tmp_path))
    np.testing.assert_allclose(found, before, atol=1e-3)


@pytest.mark.parametrize(("name", "fused"), BOTH)
def test_scales_of_tokens_change_nothing(name, fused, language_graphs, language_checkpoints, tmp_path):
    graph, model = language_graphs(name, fused), CausalLM.open(language_checkpoints[name])
    weights = weights_of(model)
    opened = BlockGraph(graph, weights, embedding_of(model).detach().numpy())
    for ends in ("down_proj", "o_proj"):
        for layer in (0, 1):
            names = [n for n in weights if f"layers.{layer}." in n and n.endswith(ends)]
            opened.scale_tokens(opened.computing(names))
    opened.save(tmp_path)
    assert sum(node.op_type == "ReduceMax" for node in opened.graph.node) == 4
    ids = np.arange(2, 14)
    before, found = (Decoder(path / "model.onnx", capacity=16).run(ids) for path in (graph, tmp_path))
    np.testing.assert_allclose(found, before, atol=1e-4)


def test_huge_tokens_get_scales_of_their_own():
    rng = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(shape, generator=rng) for shape in ((2, 24, 16), (12, 16)))
    for factor in (1.0, 1000.0):
        windows = x.clone()
        windows[:, 3] *= factor
        sample = Sample(largest=windows.abs().amax((0, 1)), windows=list(windows))
        found = _smoothed(("a",), sample, [weight], 127)
        assert found.per_token == (factor > 1)
        scale, others = torch.from_numpy(found.factors), windows[:, 4:]
        lost = round_input(windows / scale, found.per_token)[:, 4:] * scale - others
        assert float(lost.square().sum() / others.square().sum()) < 1e-3


def test_layers_that_are_not_all_found_are_left_alone(language_graphs, language_checkpoints):
    model = CausalLM.open(language_checkpoints["llama"])
    opened = BlockGraph(language_graphs("llama"), weights_of(model), embedding_of(model).detach().numpy())
    name = "model.layers.0.self_attn.q_proj"  # joined with key and value in this graph
    assert opened.computing([name]) == []


def test_the_error_is_that_of_onnxruntimes_products():
    """DynamicQuantizeLinear and MatMulInteger, in a session."""
    import onnxruntime

    rng = np.random.default_rng(0)
    x, w = (rng.normal(size=shape).astype(np.float32) for shape in ((5, 24), (7, 24)))
    step = np.abs(w).max(1, keepdims=True) / 127
    codes = np.round(w / step).astype(np.int8)
    graph = helper.make_graph(
        [
            helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
            helper.make_node("MatMulInteger", ["q", "w", "z"], ["i"]),
            helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["f", "s"], ["m"]),
            helper.make_node("Mul", ["m", "steps"], ["y"]),
        ],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, 24])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [5, 7])],
        [numpy_helper.from_array(codes.T.copy(), "w"), numpy_helper.from_array(step.T.copy(), "steps")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = np.square(session.run(None, {"x": x})[0] - x @ w.T).sum()
    found = float(output_errors(torch.from_numpy(x), torch.from_numpy(w), torch.ones(24), 127).sum())
    assert found == pytest.approx(expected, rel=1e-3)
