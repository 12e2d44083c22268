"""A two-layer LLaMA, exported both ways: as fused by onnxruntime-genai's builder, and plain by torch."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from compress import artifact
from compress.cli import bench_inputs
from compress.cli.generate import Request, generate
from compress.config.export import GenaiExport, TorchExport
from compress.config.model import CausalLMModel
from compress.config.target import LocalTarget
from compress.errors import BenchmarkError
from compress.export import export
from compress.export.torch_onnx import write
from compress.graph import shipped_files as graphs_of
from compress.graph.decoder import Decoder
from compress.graph.gates import check_operators
from compress.graph.untrusted import inspect
from compress.models import read_summary, shipped_files
from compress.runner.with_readme import ReadmeModel
from compress.stages.result import write_result
from compress.targets import open_target
from compress.tasks import import_model
from compress.tasks.language_modeling.model import CausalLM

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
CONTEXT = 64
TEXT = "the river runs under the old bridge and the quiet city sleeps before the long winter comes again"


def write_checkpoint(folder: Path) -> transformers.LlamaForCausalLM:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator([TEXT], trainer)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    fast.chat_template = "{% for m in messages %}<s>{{ m['content'] }}</s>{% endfor %}"
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,  # fused rotary attention wants multiples of 16
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        initializer_range=0.25,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def made(tmp_path_factory, splits_folder):
    """`model` in torch, its `checkpoint`, and the folders of the graphs `fused` and `plain`."""
    folder = tmp_path_factory.mktemp("llama")
    checkpoint, fused, plain = (folder / name for name in ("checkpoint", "fused", "plain"))
    for each in (checkpoint, fused, plain):
        each.mkdir()
    model = write_checkpoint(folder / "published")
    import_model(CausalLMModel(source=f"path:{folder / 'published'}"), checkpoint)
    export(GenaiExport(), checkpoint, splits_folder, fused)
    write(CausalLM.open(checkpoint).traced([]), plain / "model.onnx", TorchExport(fuse=False))
    write_result(checkpoint, ships=shipped_files(checkpoint))
    write_result(plain, ships=graphs_of(plain))
    return SimpleNamespace(model=model, checkpoint=checkpoint, fused=fused, plain=plain)


@pytest.fixture(scope="module")
def both_shipped(made, tmp_path_factory):
    """The artifacts of the fused and of the plain graph."""
    ids = np.array([[5, 9, 2, 6]])
    zeros = np.zeros((1, 2, 0, 16), np.float32)
    inputs = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "position_ids": np.arange(4)[None],
        **{f"past_key_values.{i}.{kind}": zeros for i in range(2) for kind in ("key", "value")},
    }
    names = ("name", "base_model", "source", "license")
    empty = ("config", "splits", "headline")
    manifest = artifact.Manifest(
        **dict.fromkeys(names, "m"),
        lineage=(),
        **{key: {} for key in empty},
        environment={"threads": 1},
        opset=14,
    )
    card = read_summary(made.checkpoint).card
    target = open_target(LocalTarget(threads=1))
    folders = []
    for graph, code in ((made.fused, "generating_code"), (made.plain, "example_code")):
        folders.append(tmp_path_factory.mktemp("shipped") / "artifact")
        opening = target.opening("model.onnx", code == "generating_code")
        artifact.write_artifact(
            folders[-1],
            graph=graph,
            checkpoint=made.checkpoint,
            inputs=inputs,
            card=f"```python\n{opening}{card[code]}```\n",
            manifest=manifest,
            keep_checkpoint=True,
        )
    return folders


@pytest.fixture(scope="module")
def shipped(both_shipped):
    return both_shipped[0]


@pytest.mark.parametrize("kind", ["fused", "plain"])
def test_step_by_step_equals_the_whole_equals_torch(made, kind):
    decoder = Decoder(getattr(made, kind) / "model.onnx", threads=1, capacity=32)
    assert decoder.fused == (kind == "fused")
    ids = np.random.default_rng(0).integers(0, 300, 20)
    with torch.no_grad():
        wanted = made.model(torch.tensor(ids)[None]).logits[0].numpy()
    for cuts in ([], range(1, 20), [7, 8, 15]):
        decoder.reset()
        found = np.concatenate([decoder.run(piece) for piece in np.split(ids, list(cuts))])
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def greedy(model, ids, count):
    with torch.no_grad():
        for _ in range(count):
            ids = [*ids, int(model(torch.tensor([ids])).logits[0, -1].argmax())]
    return ids[-count:]


def test_what_ships_is_checked_and_writes_what_torch_writes(made, shipped):
    artifact.verify(shipped)
    assert {"genai_config.json", "chat_template.jinja"} <= {path.name for path in shipped.iterdir()}
    tokenizer = transformers.AutoTokenizer.from_pretrained(shipped)
    for chat in (False, True):
        pieces: list[str] = []
        prompt = "the old city"
        generate(shipped, Request(prompt=prompt, max_new_tokens=6, chat=chat), pieces.append)
        text = f"<s>{prompt}</s>" if chat else prompt
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        wanted = greedy(made.model, ids, 6)
        wanted = wanted[: wanted.index(1)] if 1 in wanted else wanted
        whole = tokenizer.decode([*ids, *wanted], skip_special_tokens=True)
        before = tokenizer.decode(ids, skip_special_tokens=True)
        assert "".join(pieces).rstrip("\ufffd") == whole.removeprefix(before).rstrip("\ufffd")


def test_the_artifact_opens_in_genai_and_in_transformers(made, shipped):
    import onnxruntime_genai as og

    ids = [5, 9, 2, 6]
    model = og.Model(str(shipped))
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=12, do_sample=False)
    generator = og.Generator(model, params)
    generator.append_tokens(ids)
    while not generator.is_done():
        generator.generate_next_token()
    found = list(generator.get_sequence(0))[4:]
    assert found == greedy(made.model, ids, 8)[: len(found)]
    assert len(found) == 8 or found[-1] == 1
    again = transformers.AutoModelForCausalLM.from_pretrained(shipped / "checkpoint")
    with torch.no_grad():
        torch.testing.assert_close(*(each(torch.tensor([ids])).logits for each in (again, made.model)))


def test_the_runtime_takes_the_threads_of_the_times(shipped):
    config = json.loads((shipped / "genai_config.json").read_text())
    assert config["model"]["decoder"]["session_options"]["intra_op_num_threads"] == 1


def test_the_cards_of_both_graphs_write_what_torch_writes(made, both_shipped, monkeypatch, capsys):
    """And what they left can be timed: a prompt, and a token behind others."""
    fused, plain = both_shipped
    ids = transformers.AutoTokenizer.from_pretrained(plain)("Once upon a time")["input_ids"]
    cache = {
        name: np.zeros((1, 2, 3, 16), np.float32) for name in CausalLM.open(made.checkpoint).input_names[2:]
    }
    feeds = {"prompt": {"input_ids": np.array([ids])}, "step": {"input_ids": np.array([[4]])}}
    feeds["prompt"] |= {name: each[:, :, :0] for name, each in cache.items()}
    feeds["step"] |= cache
    for name, past in (("prompt", 0), ("step", 3)):
        feeds[name]["attention_mask"] = np.ones((1, past + feeds[name]["input_ids"].shape[1]), np.int64)
        feeds[name]["position_ids"] = np.arange(past, feeds[name]["attention_mask"].shape[1])[None]
        np.savez(plain.parent / f"{name}.npz", **feeds[name])
    files = {name: str(plain.parent / f"{name}.npz") for name in feeds}
    for folder in (plain, fused):
        capsys.readouterr()
        monkeypatch.chdir(folder)
        model = ReadmeModel({"path": str(folder / "README.md"), "workloads": files})
        found = model.names["tokens"] if folder is plain else list(model.names["generator"].get_sequence(0))
        assert found == [*ids, *greedy(made.model, ids, len(found) - len(ids))]
        assert len(found) == (len(ids) + 16 if folder is plain else 64) or found[-1] == 1
        assert capsys.readouterr().out.startswith("Once upon a time")
        for name in feeds:
            assert model.first_run(name)[name] > 0
            assert len(model.calls(name, 3)) == 3


def test_both_graphs_can_be_timed_on_the_same_arrays(made):
    graphs = {}
    for kind in ("fused", "plain"):
        path = getattr(made, kind) / "model.onnx"
        check_operators(onnx.load(path, load_external_data=False))
        graphs[kind] = inspect(path, BenchmarkError)
    assert graphs["fused"].size_bytes > 4 * 300 * 32  # with the weights beside it
    inputs = bench_inputs.common_inputs(graphs)
    assert inputs["input_ids"].vocabulary == 300
    [feeds] = bench_inputs.make_workloads(list(inputs.values()), ["1x1+30"], {}, {}).values()
    assert feeds["attention_mask"].shape == (1, 31)
    assert feeds["past_key_values.1.value"].shape == (1, 2, 30, 16)
