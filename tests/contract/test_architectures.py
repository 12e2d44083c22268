"""Each architecture all the way: imported, pruned, opened by stock transformers, exported, quantized.

What else is true of a stage is tested on one or two architectures beside that stage.
"""

from subprocess import CompletedProcess
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
import transformers

from compress import tasks
from compress.config.export import GenaiExport, TorchExport
from compress.config.prune import ChannelPrune, Keep, LanguageKeep, LanguagePrune, StructuredPrune
from compress.config.quantize import Int4Blocks, Int8Blocks, Int8Dynamic, Int8Static
from compress.export import export
from compress.graph.decoder import Decoder
from compress.models.architectures import LANGUAGE_MODELS
from compress.prune import prune
from compress.quantize import quantize
from compress.schema.quantization import Coverage
from compress.stages.result import read_result
from tests.conftest import LANGUAGE

FLAGS = ("avx512_vnni",)


@pytest.fixture
def way(tmp_path, monkeypatch):
    """Prune, export and quantize a checkpoint; the folders of the three results."""
    fresh = SimpleNamespace(run=lambda *_, **__: CompletedProcess([], 0, "0.0", ""))
    monkeypatch.setattr("compress.prune.reload.subprocess", fresh)  # it takes seconds; stock opens it below

    def through_all_stages(checkpoint, splits, pruning, exporting, quantizing):
        pruned, graph, small = (tmp_path / name for name in ("pruned", "graph", "small"))
        for folder in (pruned, graph, small):
            folder.mkdir()
        with torch.enable_grad():
            prune(pruning, checkpoint, splits, pruned)
        export(exporting, pruned, splits, graph)
        quantize(quantizing, FLAGS, graph, pruned, splits, small)
        return pruned, graph, small

    return through_all_stages


def covered(folder):
    return read_result(folder).fact("coverage", Coverage).coverage_macs


def cosines(left, right):
    return (left * right).sum(-1) / np.linalg.norm(left, axis=-1) / np.linalg.norm(right, axis=-1)


def outputs(folder, feeds):
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, {given.name: feeds[given.name] for given in session.get_inputs()})[0]


ENCODERS = [
    *("bert", "distilbert", "mpnet", "qwen3"),
    *(  # nearly as one of the others
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("roberta", "nomic_bert", "modernbert", "eurobert", "gemma3_text")
    ),
]


@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_an_encoder(name, way, checkpoints, splits_folder, splits):
    dense = tasks.load(checkpoints[name])
    heads = 1.0 if dense.architecture.whole_heads else 0.5
    layers = len(dense.stack.blocks) // 2
    cut = StructuredPrune(keep=Keep(ffn=0.5, heads=heads, layers=0.5), round_to=8)
    pruned, graph, small = way(checkpoints[name], splits_folder, cut, TorchExport(), Int8Dynamic())
    encoder = tasks.load(pruned)
    assert encoder.widths() == {"ffn": (32,) * layers, "heads": (int(4 * heads),) * layers}
    inputs = encoder.tokenize(splits.test.texts[:6])
    assert inputs["input_ids"].shape[1] > 4 * 6  # ModernBERT's windows end within the texts
    stock = transformers.AutoModel.from_pretrained(pruned, local_files_only=True).eval()
    states = encoder.module.backbone(**inputs).last_hidden_state
    exact = 1e-6 if dense.architecture.final_norm is None else 1e-5  # sums in front of one norm are large
    torch.testing.assert_close(stock(**inputs).last_hidden_state, states, atol=exact, rtol=0)
    expected = encoder.module(**inputs)["sentence_embedding"].numpy()
    feeds = {key: value.numpy() for key, value in inputs.items()}
    np.testing.assert_allclose(outputs(graph, feeds), expected, atol=1e-5)
    assert cosines(outputs(small, feeds), expected).min() > 0.98
    assert covered(small) == 1.0


QUICK = ["llama", "qwen3", "gemma3_text", "phi3", "granite"]  # the others are nearly as one of them


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in LANGUAGE]
)
@torch.no_grad()
def test_a_language_model(name, way, language_checkpoints, splits_folder):
    """By the builder and in 8 bits where it knows the architecture, else by torch.export and in 4."""
    heads = 1.0 if LANGUAGE_MODELS[name].whole_heads else 0.5
    cut = LanguagePrune(
        vocabulary=288,
        keep=LanguageKeep(ffn=0.5, heads=heads, layers=0.5),
        **{"round_to": 8, "calibration_tokens": 512, "protect_first": 0, "protect_last": 0},
    )
    exporting, blocks = GenaiExport(), Int8Blocks(block_size=32, max_kl=0.2)
    fused = bool(LANGUAGE_MODELS[name].builder)
    if not fused:
        exporting, blocks = TorchExport(), Int4Blocks(block_size=32, max_kl=1.0)
    pruned, graph, small = way(language_checkpoints[name], splits_folder, cut, exporting, blocks)
    model = tasks.load(pruned)
    stock = transformers.AutoModelForCausalLM.from_pretrained(pruned, local_files_only=True).eval()
    ids = torch.arange(5, 19)[None]  # longer than the windows of attention
    logits = stock(ids).logits[0].numpy()
    assert torch.equal(model.run({"input_ids": ids}), stock(ids).logits)
    decoder = Decoder(graph / "model.onnx", capacity=16)
    steps = [decoder.run(part) for part in np.split(ids[0].numpy(), [4, 5])]  # a prompt, then token by token
    assert cosines(np.concatenate(steps), logits).min() > 0.99999
    rounded = Decoder(small / "model.onnx", capacity=16).run(ids[0].numpy())
    alike = cosines(rounded, logits)
    assert alike.min() > 0.98 if fused else np.median(alike) > 0.9
    assert covered(small) == 1.0


NETS = {
    "resnet": (ChannelPrune(keep=0.5, round_to=2, images=30), 1.0),
    "depthwise": (ChannelPrune(keep=0.5, round_to=2, images=30), 1.0),
    "vit": (StructuredPrune(keep=Keep(ffn=0.5, heads=0.5, layers=0.5), round_to=8), 0.82),
}


@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_a_net(name, way, image_checkpoints, image_splits_folder, image_splits):
    cut, share = NETS[name]
    int8 = Int8Static(examples=30, min_coverage=0.5)
    pruned, graph, small = way(image_checkpoints[name], image_splits_folder, cut, TorchExport(), int8)
    model = tasks.load(pruned)
    inputs = model.inputs(image_splits.test.images)
    inputs = {key: torch.as_tensor(value) for key, value in inputs.items()}
    expected = model.run(inputs).numpy()
    if name == "vit":  # the others are of our own builders
        stock = transformers.AutoModelForImageClassification.from_pretrained(pruned).eval()
        torch.testing.assert_close(stock(**inputs).logits.numpy(), expected, atol=1e-6, rtol=0)
    feeds = {key: value.numpy() for key, value in inputs.items()}
    np.testing.assert_allclose(outputs(graph, feeds), expected, atol=1e-4)
    assert cosines(outputs(small, feeds), expected).mean() > 0.95
    assert covered(small) == pytest.approx(share, abs=0.02)
