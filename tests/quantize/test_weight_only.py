"""Language models in blocks of integers: architectures, exports, what is stored and what refused."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from scipy.special import rel_entr, softmax

from compress.config.export import GenaiExport
from compress.config.quantize import Clip, Int4Blocks, Int8Blocks, MixedBlocks, Rounding
from compress.errors import ConfigError, GateError
from compress.export import export
from compress.graph.decoder import Decoder
from compress.graph.session import open_session
from compress.quantize import quantize
from compress.quantize.block_graph import BlockGraph
from compress.quantize.fidelity import divergence
from compress.quantize.language_layers import embedding_of, weights_of
from compress.schema.quantization import Coverage, LayerErrors
from compress.stages.result import read_result
from compress.tasks.language_modeling.model import CausalLM

CASES = [  # others: tests/contract
    *(("llama", True), ("llama", False)),
    *(pytest.param(name, False, marks=pytest.mark.slow) for name in ("gemma3_text", "phi3")),
]
QUICK = {"windows": 4, "max_kl": 100.0, "min_sqnr_db": 0.0}  # a random model is not near to itself in 4 bits


@pytest.fixture
def run(language_graphs, language_checkpoints, splits_folder, tmp_path):
    def made(config, name="llama", fused=True, out="small") -> Path:
        (tmp_path / out).mkdir()
        quantize(
            config,
            (),
            language_graphs(name, fused),
            language_checkpoints[name],
            splits_folder,
            tmp_path / out,
        )
        return tmp_path / out

    return made


def counted(folder: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(folder / "model.onnx").graph.node)


def facts(folder: Path):
    return read_result(folder).facts["blocks"]


@pytest.mark.parametrize(("name", "fused"), CASES)
def test_every_layer_becomes_integer_and_eight_bits_stay_near(name, fused, run, language_graphs):
    folder = run(Int8Blocks(block_size=32, max_kl=0.2), name, fused)
    found = counted(folder)
    assert read_result(folder).fact("coverage", Coverage).coverage_macs == 1.0
    assert found["GatherBlockQuantized"] == 0  # OpenVINO does not read it where a head shares its codes
    assert found["MatMulNBits"] >= 2 * 4 + 1 - 2 * (name == "phi3" and not fused)
    assert read_result(folder).fact("layer_errors", LayerErrors).worst_alone_db > 25
    assert facts(folder)["kl_of_float_activations"] < 0.02
    dense, small = (
        Decoder(path / "model.onnx", capacity=32).run(np.arange(2, 14))
        for path in (language_graphs(name, fused), folder)
    )
    assert (dense * small).sum() / np.linalg.norm(dense) / np.linalg.norm(small) > 0.99


def test_head_and_embedding_of_a_tied_model_are_stored_once(run):
    graph = onnx.load(run(Int8Blocks(block_size=32)) / "model.onnx").graph
    head = next(node for node in graph.node if node.op_type == "MatMulNBits" and "lm_head" in node.name)
    looked_up = {
        node.input[0] for node in graph.node if node.op_type == "Gather" and node.input[1] == "input_ids"
    }
    assert looked_up == set(head.input[1:])
    assert all(
        tensor.data_type != onnx.TensorProto.FLOAT
        or len(tensor.dims) < 2
        or tensor.name.endswith((".scales", ".scales/scaled", "_cache"))
        for tensor in graph.initializer
    )


@pytest.mark.parametrize("bits", [4, 8])
def test_the_embedding_gives_what_the_blocks_of_the_head_say(run, bits):
    """To the bit: the head's own codes, scales and zero points."""
    graph = onnx.load(run(Int4Blocks(block_size=16, head_bits=bits, **QUICK), out=str(bits)) / "model.onnx")
    head = next(node for node in graph.graph.node if node.op_type == "MatMulNBits" and "lm_head" in node.name)
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in graph.graph.initializer}
    codes, scales, zeros = (arrays[name] for name in head.input[1:])
    if bits == 4:
        codes = np.stack([codes & 15, codes >> 4], -1).reshape(*scales.shape, -1)
        zeros = np.stack([zeros & 15, zeros >> 4], -1).reshape(len(zeros), -1)[:, : scales.shape[1]]
    table = ((codes.astype(np.float32) - zeros[..., None]) * scales[..., None]).reshape(len(codes), -1)
    rows = next(
        node.output[0]
        for node in graph.graph.node
        if node.op_type == ("Reshape" if bits == 8 else "GatherBlockQuantized")
        and "embed_tokens" in node.name
    )
    graph.graph.output.append(onnx.helper.make_tensor_value_info(rows, onnx.TensorProto.FLOAT, None))
    session = open_session(graph.SerializeToString())
    ids = np.array([[3, 0, 7], [9, 3, 1]])
    [given] = session.run([rows], feeds_of(session, ids))
    np.testing.assert_array_equal(given, table[ids])


def feeds_of(session, ids):
    """The inputs of a language model that has seen nothing yet."""
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    feeds["position_ids"] = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
    for each in session.get_inputs():
        if each.name.startswith("past_key_values."):
            heads, width = each.shape[1], each.shape[3]
            feeds[each.name] = np.zeros((len(ids), heads, 0, width), np.float32)
    return {each.name: feeds[each.name] for each in session.get_inputs() if each.name in feeds}


def test_the_graph_computes_what_the_rounded_torch_model_computes(run, language_checkpoints, splits_folder):
    """The blocks in the file, put back into stock torch: the same logits."""
    from compress.quantize.layerwise import Recipe, round_layers

    folder = run(Int4Blocks(block_size=16, accuracy_level=0, awq=True, **QUICK))
    model = CausalLM.open(language_checkpoints["llama"])
    from compress.data import load_texts
    from compress.quantize.fidelity import windows_of

    windows = windows_of(model, load_texts(splits_folder).calibration.texts, 4)
    bits = {name: 8 if name == "lm_head" else 4 for name in model.linears()}
    recipe = Recipe(bits=bits, size=16, method=Rounding.gptq, clip=Clip.hessian, awq=True)
    done = []
    round_layers(model, windows, recipe, None, done.append)
    for rounded in done:
        factors = {name: each for names, each in rounded.factors.items() for name in names}
        for name, blocks in rounded.blocks.items():
            model.linears()[name].weight.data = blocks.weight() / factors.get(name, 1)
    embedding_of(model).data = model.linears()["lm_head"].weight.data
    assert any(rounded.factors for rounded in done)  # AWQ found something to do
    ids = torch.arange(2, 14)[None]
    with torch.no_grad():
        expected = model.module(input_ids=ids).logits[0].numpy()
    found = Decoder(folder / "model.onnx", capacity=32).run(ids[0].numpy())
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_gptq_is_nearer_than_rounding_to_nearest(run, language_graphs, language_checkpoints, splits_folder):
    gptq = run(Int4Blocks(block_size=32, **QUICK), out="gptq")
    nearest = run(Int4Blocks(block_size=32, method=Rounding.rtn, clip=Clip.none, **QUICK), out="rtn")
    assert facts(gptq)["kl_of_float_activations"] < facts(nearest)["kl_of_float_activations"]


def test_a_layer_may_stay_in_float(run):
    folder = run(Int8Blocks(block_size=32, exclude=[r"layers\.1\.mlp\.down_proj"], min_coverage=0.5))
    (skipped,) = (
        each for each in read_result(folder).fact("coverage", Coverage).skipped if "exclude" in each.reason
    )
    assert "down_proj" in skipped.node
    assert counted(folder)["MatMul"] == 1


def test_an_untied_model_has_two_tables(language_published, language_texts, splits_folder, tmp_path):
    from compress.config.model import CausalLMModel
    from compress.tasks import import_model
    from tests.conftest import write_language

    folders = [tmp_path / name for name in ("published", "checkpoint", "graph", "small")]
    for folder in folders:
        folder.mkdir()
    published, checkpoint, graph, small = folders
    write_language(published, "llama", language_texts, tie_word_embeddings=False)
    import_model(CausalLMModel(source=f"path:{published}"), checkpoint)
    export(GenaiExport(), checkpoint, splits_folder, graph)
    quantize(Int8Blocks(block_size=32), (), graph, checkpoint, splits_folder, small)
    names = {tensor.name for tensor in onnx.load(small / "model.onnx").graph.initializer}
    assert {"embed_tokens.codes", "lm_head.codes"} <= names
    assert facts(small)["kl"] < 0.05


def test_mixed_fits_the_budget_and_keeps_what_reads_one_tensor_alike(run, language_graphs):
    quick = {"windows": 4, "sensitivity_windows": 2, "min_sqnr_db": 0.0}
    small = run(MixedBlocks(block_size=32, max_kl=100.0, **quick), out="four")
    assert set(facts(small)["bits"].values()) == {4}
    budget = 1.15 * facts(small)["choice"]["size_bytes"] / 1e6
    config = MixedBlocks(block_size=32, max_size_mb=budget, **quick)
    folder = run(config, out="mixed")
    choice = facts(folder)["choice"]
    bits = facts(folder)["bits"]
    assert choice["size_bytes"] <= budget * 1e6
    for layer in (0, 1):
        assert len({bits[f"model.layers.{layer}.self_attn.{which}_proj"] for which in "qkv"}) == 1
    assert set(bits.values()) == {4, 8}
    initializers = onnx.load(folder / "model.onnx").graph.initializer
    stored = sum(len(tensor.raw_data) for tensor in initializers)
    assert stored == pytest.approx(choice["size_bytes"], rel=0.02)
    assert facts(folder)["kl"] < facts(small)["kl"]


def test_the_smallest_size_is_told(run):
    with pytest.raises(ConfigError, match=r"found:   0.001 MB\n.*at least 0.0\d MB|at least"):
        run(MixedBlocks(block_size=32, max_size_mb=0.001, sensitivity_windows=1, windows=2))


def test_a_block_size_that_does_not_divide(run):
    with pytest.raises(ConfigError, match=r"64, and 32 inputs of .*\n  allowed: 16, 32$"):
        run(Int8Blocks(block_size=64))


def test_a_pattern_that_matches_nothing(run):
    with pytest.raises(ConfigError, match="matches no layer"):
        run(Int8Blocks(block_size=32, exclude=["nothing"]))


def test_the_gate_stops_a_model_that_is_too_far(run):
    with pytest.raises(GateError, match="too far from the float model"):
        run(Int4Blocks(block_size=32, windows=2, min_sqnr_db=0.0, max_kl=1e-6))


def test_external_data_when_large(run, monkeypatch):
    monkeypatch.setattr("compress.quantize.block_graph.INLINE_BYTES", 1000)
    monkeypatch.setattr("compress.graph.weights.SMALL", 1000)
    folder = run(Int8Blocks(block_size=32))
    assert (folder / "model.onnx_data").is_file()
    assert sorted(path.name for path in folder.glob("*.onnx")) == ["model.onnx"]
    assert Decoder(folder / "model.onnx", capacity=8).run(np.arange(4)).shape[0] == 4


def test_products_are_found_by_their_numbers(language_graphs, language_checkpoints):
    model = CausalLM.open(language_checkpoints["llama"])
    graph, embedding = language_graphs("llama"), embedding_of(model).detach().numpy()
    joined = BlockGraph(graph, weights_of(model), embedding).products
    assert sorted(name for product in joined for name in product.linears) == sorted(model.linears())
    wrong = {name: weight + 1 for name, weight in weights_of(model).items()}
    assert BlockGraph(graph, wrong, embedding).products == []


def test_weights_rounded_in_place_are_not_written_to_the_checkpoint(run, language_checkpoints):
    path = language_checkpoints["llama"] / "model.safetensors"
    before = path.read_bytes()
    run(Int4Blocks(block_size=32, **QUICK))
    assert path.read_bytes() == before


def test_divergence_is_scipys(run, language_graphs):
    dense = language_graphs("llama") / "model.onnx"
    small = run(Int4Blocks(block_size=32, **QUICK)) / "model.onnx"
    windows = torch.arange(32).view(2, 16)
    p, q = (
        softmax(np.stack([Decoder(path, capacity=16).run(each) for each in windows.numpy()]), -1)
        for path in (dense, small)
    )
    itself, found = divergence(dense, [dense, small], windows)
    assert itself == pytest.approx(0, abs=1e-6)
    assert found == pytest.approx(rel_entr(p, q).sum(-1).mean(), rel=1e-3)
    assert found > 1e-3
