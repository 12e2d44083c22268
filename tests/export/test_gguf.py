"""GGUF files of checkpoints, read back by our own reader, by numpy and, where it is there, by llama.cpp."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from gguf import GGUFReader
from rich.console import Console

from compress import load_config
from compress.artifact import verify
from compress.config.model import CausalLMModel
from compress.config.ship import GgufFile, ShipConfig
from compress.errors import ConfigError, GateError, ModelError
from compress.export.beside import write_beside
from compress.export.gguf import divergence
from compress.models.checkpoint import Facts
from compress.models.gguf_tokens import tokenizer_keys
from compress.models.gguf_write import block_type, check_writable, rounded
from compress.pipeline import as_gguf
from compress.serve.shipped import Shipped
from compress.stages.result import read_result, write_result
from compress.stages.runner import StageRunner
from compress.stages.store import Entry, Store
from compress.tasks import import_model
from compress.tasks.language_modeling.generation import end_tokens
from compress.tasks.language_modeling.model import CausalLM
from tests.shipped import ship
from tests.zoo.gguf import LLAMA3, MARKS, QWEN2, TEKKEN, _after, _gpt2, of_bytes, of_pieces, original

LLAMA31 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


def checkpoint_of(folder, kind="llama", tokenizer=None, **changes):
    """As the load stage leaves it."""
    (folder / "published").mkdir()
    original(folder / "published", kind, tokenizer, **changes)
    (folder / "checkpoint").mkdir()
    import_model(CausalLMModel(source=f"path:{folder / 'published'}"), folder / "checkpoint")
    return folder / "checkpoint"


def written(checkpoint, file_format, out):
    out.mkdir()
    write_beside(GgufFile(format=file_format), checkpoint, out)
    [name] = read_result(out).ships
    return out / name, read_result(out).gates[0].numbers


def read_back(path, out):
    """By our own reader, whose gate holds it against numpy's."""
    out.mkdir()
    import_model(CausalLMModel(source=f"path:{path}"), out)
    return CausalLM.open(out)


def logits(model, ids):
    with torch.no_grad():
        return model.module(torch.tensor([ids])).logits[0]


@pytest.mark.parametrize(
    ("kind", "changes", "file_format"),
    [
        ("llama", {"tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True}, "f16"),
        ("llama", {"rope_parameters": LLAMA31}, "q8_0"),
        ("qwen2", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}, "q4_0"),
        ("qwen3", {}, "q8_0"),
    ],
)
def test_a_file_gives_the_logits_of_the_checkpoint_with_rounded_weights(tmp_path, kind, changes, file_format):
    checkpoint = checkpoint_of(tmp_path, kind, **changes)
    path, numbers = written(checkpoint, file_format, tmp_path / "out")
    assert path.name == f"model-{file_format}.gguf"
    model, ids = read_back(path, tmp_path / "back"), list(range(3, 60))
    dense = CausalLM.open(checkpoint)
    kl = divergence(*({"outputs/x": logits(each, ids).numpy()} for each in (dense, model)))
    most = {"f16": 1e-5, "q8_0": 0.02, "q4_0": 2.0}[file_format]
    assert 0 < kl < most
    assert 0 < numbers["kl_of_rounding_nats"] < most
    assert numbers["max_abs_diff_of_outputs"] < 1e-3
    weights, stored = dict(dense.module.named_parameters()), dict(model.module.named_parameters())
    for name, weight in weights.items():
        expected = rounded(weight.detach().numpy(), file_format, name, tuple(weight.shape))
        assert np.array_equal(stored[name].detach().numpy(), expected), name
    assert end_tokens(checkpoint) <= end_tokens(tmp_path / "back")
    assert {each.tensor_type.name for each in GGUFReader(path).tensors} == {
        "f16": {"F16", "F32"},
        "q8_0": {"Q8_0", "F32"},
        "q4_0": {"Q4_0", "Q8_0", "F32"},
    }[file_format]


@pytest.mark.parametrize(
    ("before", "name"),
    [
        (_gpt2(), "gpt-2"),
        (_after(LLAMA3), "dbrx"),
        (_after(QWEN2), "deepseek-r1-qwen"),
        (_after(TEKKEN), "tekken"),
    ],
)
def test_the_name_of_a_way_to_cut_is_found(tmp_path, before, name):
    (tmp_path / "published").mkdir()
    original(tmp_path / "published", tokenizer=of_bytes(before, whole_words=name == "tekken"))
    keys = tokenizer_keys(tmp_path / "published", {0, 1})
    assert keys["tokenizer.ggml.pre"] == name
    assert keys["tokenizer.ggml.tokens"][:3] == MARKS
    assert keys["tokenizer.ggml.token_type"][:4] == [3, 3, 3, 1]
    found = {part: keys.get(f"tokenizer.ggml.{part}_token_id") for part in ("bos", "eos", "unknown", "eot")}
    assert found == {"bos": 1, "eos": 0, "unknown": 2, "eot": 1}
    assert keys["tokenizer.ggml.add_bos_token"] is False


def test_layers_with_widths_of_their_own_are_padded(tmp_path):
    model = CausalLM.open(checkpoint_of(tmp_path))
    layer = model.stack.layers()[1]
    with torch.no_grad():
        for linear in (layer.gate, layer.ffn_in):
            linear.weight = torch.nn.Parameter(linear.weight[:70].clone())
            linear.out_features = 70
        layer.ffn_out.weight = torch.nn.Parameter(layer.ffn_out.weight[:, :70].clone())
        layer.ffn_out.in_features = 70
    facts = Facts(task="language_modeling", source="made", base_model="m", license="mit")
    (tmp_path / "pruned").mkdir()
    model.save(tmp_path / "pruned", facts)
    path, numbers = written(tmp_path / "pruned", "q8_0", tmp_path / "out")
    assert numbers["max_abs_diff_of_outputs"] < 1e-3
    back, ids = read_back(path, tmp_path / "back"), list(range(3, 40))
    assert back.widths()["ffn"] == (96, 96)
    narrow = CausalLM.open(tmp_path / "pruned")
    assert narrow.widths()["ffn"] == (96, 70)
    assert (
        divergence({"outputs/x": logits(narrow, ids).numpy()}, {"outputs/x": logits(back, ids).numpy()})
        < 0.02
    )


def test_a_divergence_by_hand():
    one, other = np.log([[0.5, 0.5]]), np.log([[0.25, 0.75]])
    found = divergence({"outputs/x": one, "tokens/x": one}, {"outputs/x": other})
    assert found == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3))


def test_it_ships_beside_the_graph(tmp_path, tiny_lm):
    checkpoint = checkpoint_of(tmp_path)
    runner = StageRunner(Store(tmp_path / "store"), Console(quiet=True), "language_modeling")
    entry, config = Entry(checkpoint, "digest", reused=False, seconds=0.0), SimpleNamespace(ship=ShipConfig())
    assert as_gguf(config, entry, runner) is None
    config.ship = ShipConfig(gguf="q8_0")
    made = as_gguf(config, entry, runner)
    assert as_gguf(config, entry, runner).reused
    tiny_lm.write(tmp_path / "model.onnx")
    write_result(tmp_path, ships=["model.onnx", "model.onnx_data"])
    inputs = tiny_lm.feeds(np.array([[1, 2, 3]]))
    artifact = ship(tmp_path / "artifact", tmp_path, checkpoint, inputs, beside=made.path)
    assert "model-q8_0.gguf" in verify(artifact).files
    assert Shipped(artifact).artifact == artifact


def test_other_tasks_have_no_such_file():
    with pytest.raises(ConfigError, match="gguf has no such value"):
        ShipConfig(gguf="q2_k")
    with pytest.raises(ConfigError, match="language models alone"):
        load_config("experiment=minilm", "ship.gguf=q8_0")


def test_rounding_by_hand():
    """A scale for 32 weights: the largest over 127, or the largest with its sign over -8."""
    values = np.zeros((1, 32), np.float32)
    values[0, :3] = 127, 0.6, -50.4
    assert rounded(values, "q8_0", "x", (1, 32))[0, :4].tolist() == [127, 1, -50, 0]
    values[0, :4] = -8, 3.4, 7, 0.4
    assert rounded(values, "q4_0", "x", (1, 32))[0, :4].tolist() == [-8, 3, 7, 0]
    assert rounded(values[:, :9], "q4_0", "x", (1, 32)).shape == (1, 9)
    assert rounded(np.float32([[1 / 3]]), "q8_0", "x", (1, 1))[0, 0] == np.float16(1 / 3)
    assert rounded(np.float32([1 / 3]), "q4_0", "x", (1,))[0] == np.float32(1 / 3)
    assert block_type("q4_0", "output.weight", (4, 64)).name == "Q8_0"


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("gemma3_text", {"head_dim": 16}, "this architecture.*\n.*gemma3_text"),
        ("llama", {"hidden_act": "gelu"}, "this activation.*\n.*gelu"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}},
            "this rotation.*\n.*yarn",
        ),
    ],
)
def test_what_is_not_written(tmp_path, kind, changes, said):
    (tmp_path / "published").mkdir()
    original(tmp_path / "published", kind, **changes)
    config = transformers.AutoConfig.from_pretrained(tmp_path / "published").to_dict()
    with pytest.raises(ModelError, match=said):
        check_writable(config)


def test_tokenizers_that_are_not_written(tmp_path):
    original(tmp_path, tokenizer=of_pieces()[0])
    with pytest.raises(ModelError, match="BPE of pieces"):
        tokenizer_keys(tmp_path, {0})


def test_a_file_that_holds_something_else_is_found(tmp_path, monkeypatch):
    checkpoint = checkpoint_of(tmp_path)
    monkeypatch.setattr("compress.models.gguf_write._PAIRED", ())
    with pytest.raises(GateError, match=r"does not hold what the checkpoint does\n.*max abs difference"):
        written(checkpoint, "f16", tmp_path / "out")


@pytest.mark.slow
def test_llama_cpp_writes_the_same_tokens(tmp_path):
    llama_cpp = pytest.importorskip("llama_cpp")
    checkpoint = checkpoint_of(tmp_path, max_position_embeddings=64)
    path, _ = written(checkpoint, "f16", tmp_path / "out")
    prompt = [5, 90, 17, 200]
    model = llama_cpp.Llama(str(path), n_ctx=64, n_threads=1, verbose=False)
    found = []
    for token in model.generate(prompt, temp=0.0):
        found.append(token)
        if len(found) == 20:
            break
    stock = transformers.AutoModelForCausalLM.from_pretrained(checkpoint)
    ids = torch.tensor([prompt])
    stock.generation_config.eos_token_id = None
    expected = stock.generate(ids, max_new_tokens=20, do_sample=False, attention_mask=torch.ones_like(ids))
    assert found == expected[0, len(prompt) :].tolist()
