"""Language models as ONNX, fused and plain: right at once and token by token."""

import json

import numpy as np
import onnx
import onnxruntime
import onnxruntime_genai as og
import pytest
import torch
import transformers

from compress.config.export import GenaiExport, TorchExport
from compress.config.model import CausalLMModel
from compress.errors import GateError, ModelError
from compress.export import export, plain
from compress.graph.decoder import KEEP, Decoder
from compress.models.architectures import LANGUAGE_MODELS
from compress.prune.width import Channels, apply
from compress.stages.result import read_result
from compress.tasks import import_model
from compress.tasks.language_modeling.generation import (
    continuation,
    continuations,
    rotated_anew,
)
from compress.tasks.language_modeling.model import CausalLM
from tests.conftest import LANGUAGE_SIZES

FUSED = tuple(name for name, architecture in LANGUAGE_MODELS.items() if architecture.builder)


QUICK = ("llama",)  # the slow ones have windows, layers without rotation and more
PLAIN = [
    *QUICK,
    *(pytest.param(each, marks=pytest.mark.slow) for each in LANGUAGE_MODELS if each not in QUICK),
]


@pytest.mark.parametrize("name", PLAIN)
@torch.no_grad()
def test_batch_tokens_and_past_of_a_plain_graph_are_open(name, language_checkpoints, language_graphs):
    session = onnxruntime.InferenceSession(language_graphs(name, fused=False) / "model.onnx")
    model = CausalLM.open(language_checkpoints[name])
    assert tuple(each.name for each in session.get_inputs()) == model.input_names
    shapes = [tuple(each.shape) for each in session.get_inputs()[:3]]
    tokens = ("batch_size", "sequence_length")
    assert shapes == [tokens, ("batch_size", "total_sequence_length"), tokens]
    outputs = [each.name for each in session.get_outputs()]
    assert outputs == [
        each.replace("past_key_values", "present") for each in ("logits", *model.input_names[3:])
    ]
    ids = torch.from_numpy(np.random.default_rng(0).integers(2, 300, (2, 12)))
    mask = torch.tensor([[0] * 3 + [1] * 9, [1] * 12])  # the first is filled up on its left
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    alone = [model.run({"input_ids": row[real.bool()][None]})[0] for row, real in zip(ids, mask, strict=True)]
    cache = model.processor.feeds(ids.numpy()[:, :0])
    for start, end in ((0, 7), (7, 8), (8, 12)):  # the second and third after the tokens of those before
        feeds = {"input_ids": ids[:, start:end], "position_ids": positions[:, start:end]}
        feeds = {key: each.numpy() for key, each in {**feeds, "attention_mask": mask[:, :end]}.items()}
        logits, *present = session.run(None, {**cache, **feeds})
        cache = dict(zip(model.input_names[3:], present, strict=True))
        for row, filled in ((0, 3), (1, 0)):
            first = max(start, filled)
            wanted = alone[row][first - filled : end - filled].numpy()
            np.testing.assert_allclose(logits[row, first - start :], wanted, atol=1e-4)


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_graph_computes_what_torch_computes(name, language_checkpoints, language_graphs):
    check_against_torch(False, name, language_checkpoints, language_graphs)


@pytest.mark.parametrize("name", FUSED)
def test_a_fused_graph_computes_what_torch_computes(name, language_checkpoints, language_graphs):
    check_against_torch(True, name, language_checkpoints, language_graphs)


def check_against_torch(fused, name, language_checkpoints, language_graphs):
    graph = language_graphs(name, fused)
    numbers = read_result(graph).gates[0].numbers
    assert numbers["min_cosine"] > 0.999999
    assert numbers["same_largest"] == 1.0
    decoder = Decoder(graph / "model.onnx", capacity=32)
    assert decoder.fused == fused
    stock = transformers.AutoModelForCausalLM.from_pretrained(language_checkpoints[name]).eval()
    prompt = torch.tensor([[5, 6, 7, 8, 9, 10]])
    wanted = stock.generate(prompt, max_new_tokens=8, do_sample=False, eos_token_id=None)[0, 6:].tolist()
    found = [int(decoder.run(prompt[0].numpy())[-1].argmax())]
    while len(found) < 8:
        found.append(int(decoder.run(np.array(found[-1:]))[-1].argmax()))
    assert found == wanted


LLAMA3 = {  # as Llama 3.2 has it, but for the last of its positions
    "max_position_embeddings": 16384,
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}
LONGROPE = {  # of 8 frequencies; as Phi-3 mini of 128k tokens has it
    "original_max_position_embeddings": 64,
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1 + i / 10 for i in range(8)],
        "long_factor": [4.0 + 3 * i for i in range(8)],
        "original_max_position_embeddings": 64,
    },
}
WINDOW = {"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 1}
ONE_WINDOW = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("llama", LLAMA3),
        ("phi3", LONGROPE),
        ("gemma3_text", ONE_WINDOW),
        *((name, WINDOW) for name in ("mistral", "qwen2", "qwen3", "phi3")),
        ("qwen2", {**WINDOW, "sliding_window": 160}),  # longer than the texts of the gate
        *((name, {}) for name in ("ernie4_5", "granite", "hunyuan_v1_dense", "seed_oss", "smollm3")),
    ],
)
@torch.no_grad()
def test_positions_are_those_of_stock_transformers(
    name, changes, language_texts, splits_folder, write_language, tmp_path
):
    """Rotation and windows of attention, at positions far beyond the windows."""
    published = write_language(tmp_path / "published", name, language_texts, **changes)
    checkpoint, graph = tmp_path / "checkpoint", tmp_path / "graph"
    for folder in (checkpoint, graph):
        folder.mkdir()
    import_model(CausalLMModel(source=f"path:{published}"), checkpoint)
    export(GenaiExport(), checkpoint, splits_folder, graph)
    ids = np.random.default_rng(0).integers(2, 300, 600 if changes is LLAMA3 else 250)
    stock = transformers.AutoModelForCausalLM.from_pretrained(published).eval()
    decoder = Decoder(graph / "model.onnx", capacity=640)
    found = np.concatenate([decoder.run(part) for part in np.split(ids, [100, 101])])
    np.testing.assert_allclose(found, stock(torch.from_numpy(ids[None])).logits[0].numpy(), atol=1e-4)
    np.testing.assert_allclose(logits_of_its_runtime(graph, ids[:100]), found[99], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("llama", {"head_dim": 8}, "head_size shall be a multiple of 16"),
        ("phi3", {"partial_rotary_factor": 0.5}, "cos_cache dimension 1"),
    ],
)
def test_what_the_fused_attention_cannot_run_is_said_with_what_can(
    name, changes, said, language_texts, splits_folder, write_language, tmp_path
):
    published = write_language(tmp_path / "published", name, language_texts, num_hidden_layers=1, **changes)
    checkpoint, graph = tmp_path / "checkpoint", tmp_path / "graph"
    for folder in (checkpoint, graph):
        folder.mkdir()
    import_model(CausalLMModel(source=f"path:{published}"), checkpoint)
    with pytest.raises(GateError, match=rf"cannot run(.*\n)+.*{said}(.*\n)+  next: +try export=torch"):
        export(GenaiExport(), checkpoint, splits_folder, graph)


@torch.no_grad()
def test_text_that_grows_beyond_the_first_factors_of_longrope(
    language_texts, splits_folder, write_language, tmp_path
):
    """Stock transformers computes the cache anew there."""
    published = write_language(tmp_path / "published", "phi3", language_texts, **LONGROPE)
    checkpoint, graph = tmp_path / "checkpoint", tmp_path / "graph"
    for folder in (checkpoint, graph):
        folder.mkdir()
    import_model(CausalLMModel(source=f"path:{published}"), checkpoint)
    export(GenaiExport(), checkpoint, splits_folder, graph)
    ids = np.random.default_rng(0).integers(2, 300, 60).tolist()
    stock = transformers.AutoModelForCausalLM.from_pretrained(published).eval()
    decoder, seen = Decoder(graph / "model.onnx", capacity=128), []

    def pick(logits):
        seen.append(logits)
        return int(logits.argmax())

    found = list(continuation(decoder, ids, 12, pick, rotated_anew(checkpoint)))
    for place, logits in enumerate(seen):
        expected = stock(torch.tensor([ids + found[:place]])).logits[0, -1].numpy()
        np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert continuations(graph / "model.onnx", checkpoint, [ids, ids[:20]], 12)[0] == found


@pytest.mark.parametrize("config", [GenaiExport(), TorchExport()])
@torch.no_grad()
def test_a_rotation_that_texts_beyond_the_context_would_stretch(
    config, language_texts, splits_folder, write_language, tmp_path
):
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
    published = write_language(
        tmp_path / "published", "llama", language_texts, rope_parameters=rope, num_hidden_layers=1
    )
    checkpoint, graph = tmp_path / "checkpoint", tmp_path / "graph"
    for folder in (checkpoint, graph):
        folder.mkdir()
    import_model(CausalLMModel(source=f"path:{published}"), checkpoint)
    export(config, checkpoint, splits_folder, graph)
    ids = np.random.default_rng(0).integers(2, 300, LANGUAGE_SIZES["max_position_embeddings"])
    stock = transformers.AutoModelForCausalLM.from_pretrained(published).eval()
    found = Decoder(graph / "model.onnx", capacity=len(ids)).run(ids)
    np.testing.assert_allclose(found, stock(torch.from_numpy(ids[None])).logits[0].numpy(), atol=1e-4)


def logits_of_its_runtime(graph, ids):
    """Of the last of `ids`, as onnxruntime-genai opens the folder."""
    opened = og.Model(str(graph))
    parameters = og.GeneratorParams(opened)
    parameters.set_search_options(max_length=len(ids) + 1)
    generator = og.Generator(opened, parameters)
    generator.append_tokens(ids.astype(np.int32))
    return generator.get_output("logits")[0, -1]


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "phi3"])
def test_one_graph_gives_all_logits_or_the_last(name, language_graphs):
    decoder = Decoder(language_graphs(name) / "model.onnx", capacity=16)
    ids = np.arange(3, 12)
    every = decoder.run(ids)
    assert len(every) == len(ids)
    decoder.reset()
    np.testing.assert_array_equal(decoder.run(ids, last=True), every[-1:])
    session = decoder.session  # whoever does not know of the input gets the last
    feeds = {"input_ids": ids[None], "attention_mask": np.ones((1, len(ids)), np.int64)}
    feeds |= {"position_ids": np.arange(len(ids))[None]}
    decoder.reset()
    feeds |= decoder.cache
    wanted = {each.name for each in session.get_inputs()}
    logits = session.run(["logits"], {key: each for key, each in feeds.items() if key in wanted})[0]
    np.testing.assert_array_equal(logits[0], every[-1:])


@pytest.mark.parametrize("name", ["llama", "phi3"])  # the second has gates and channels in one matrix
def test_layers_of_different_widths(name, language_checkpoints, splits_folder, tmp_path):
    """Are exported without their padding, and the graph says how wide each is."""
    model = CausalLM.open(language_checkpoints[name])
    apply(Channels(0.5, 1, repair=False), model.stack, 0, torch.arange(40), {}, 0.01)
    checkpoint, graph = tmp_path / "checkpoint", tmp_path / "graph"
    for folder in (checkpoint, graph):
        folder.mkdir()
    model.save(checkpoint, model.facts)
    export(GenaiExport(), checkpoint, splits_folder, graph)
    values = onnx.load(graph / "model.onnx").graph.value_info
    shapes = {each.name: each.type.tensor_type.shape.dim for each in values}
    for part in ("gate_proj", "up_proj"):
        found = [shapes[f"/model/layers.{layer}/mlp/{part}/MatMul/output_0"][-1] for layer in (0, 1)]
        assert [each.dim_value for each in found] == [40, 64]
    ids = np.arange(5, 25)
    stock = transformers.AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    with torch.no_grad():
        wanted = stock(torch.from_numpy(ids[None])).logits[0].numpy()
    np.testing.assert_allclose(Decoder(graph / "model.onnx", capacity=32).run(ids), wanted, atol=1e-4)


def test_a_full_cache_is_an_error(language_graphs):
    decoder = Decoder(language_graphs("llama") / "model.onnx", capacity=4)
    with pytest.raises(ModelError, match="full"):
        decoder.run(np.arange(5))


def test_a_graph_without_a_cache_is_no_decoder(tmp_path):
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [value], [out])
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(made, tmp_path / "model.onnx")
    with pytest.raises(ModelError, match="no language model"):
        Decoder(tmp_path / "model.onnx")


def test_what_its_builder_does_not_know_is_refused(language_checkpoints, splits_folder, tmp_path):
    with pytest.raises(
        ModelError, match=r"does not know.*\n  found:   olmo3\n.*granite.*\n  next: +export=torch"
    ):
        export(GenaiExport(), language_checkpoints["olmo3"], splits_folder, tmp_path)


def test_the_gate_fails(language_checkpoints, splits_folder, tmp_path):
    with pytest.raises(GateError, match="does not compute"):
        export(GenaiExport(max_abs_diff=1e-9), language_checkpoints["llama"], splits_folder, tmp_path)


@pytest.mark.parametrize(
    "name", ["llama", "qwen3", "smollm3"]
)  # without positions, with, and either by layer
def test_genai_config_names_what_the_graph_takes(name, language_checkpoints, language_graphs):
    folder = language_graphs(name)
    described = json.loads((folder / "genai_config.json").read_text())["model"]["decoder"]
    assert {each.name for each in folder.iterdir()} == {
        *("model.onnx", "model.onnx_data", "genai_config.json", "stage.json")
    }
    inputs = {each.name for each in onnx.load(folder / "model.onnx", load_external_data=False).graph.input}
    assert {each for each in described["inputs"].values() if "%d" not in each} == {
        each for each in inputs if "." not in each and each != KEEP
    }
    model = CausalLM.open(language_checkpoints[name])
    assert described["num_key_value_heads"] == model.kv_heads
    assert TorchExport().fuse
    assert not plain(GenaiExport()).fuse
