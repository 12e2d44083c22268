"""Language models of published configurations compute in both graphs what stock transformers computes."""

import numpy as np
import pytest
import torch
import transformers

from compress.config.export import AutoExport, TorchExport
from compress.config.model import CausalLMModel
from compress.export import export
from compress.graph.decoder import Decoder
from compress.stages.result import read_result
from compress.tasks import import_model
from tests.conftest import write_bpe
from tests.zoo.published import PUBLISHED, write_model

# Tokens that the configuration names -> whether the gate got there; 0: its cache would be larger than 512 MB.
CROSSED = {
    "Llama 3.2 1B": {8192: 1, 131072: 0},
    "Llama 3.1 8B": {8192: 1, 131072: 0},
    "Llama 2 7B": {4096: 1},
    "Yi 6B": {4096: 1},
    "Mistral 7B 0.1": {4096: 1, 32768: 1},
    "Mistral 7B 0.3": {32768: 1},
    "Qwen2 0.5B": {131072: 0},
    "Qwen2.5 0.5B": {32768: 1},
    "Qwen3 0.6B": {40960: 0},
    "SmolLM2 135M": {8192: 1},
    "SmolLM3 3B": {65536: 0},
    "Gemma 3 270M": {512: 1, 32768: 0},
    "Gemma 3 1B": {512: 1, 32768: 0},
    "Phi-3 mini 4k": {2047: 1, 4096: 1},
    "Phi-3 mini 128k": {4096: 1, 131072: 0},
    "Phi-3.5 mini": {4096: 1, 131072: 0},
}
GRAPHS = {"auto": AutoExport(), "plain": TorchExport(fuse=False)}
# One of each architecture and rotation: what differs in the others is numbers that both graphs read alike.
PLAIN = (
    *("Llama 3.2 1B", "Mistral 7B 0.1", "Qwen2.5 0.5B", "Qwen3 0.6B", "SmolLM3 3B", "Gemma 3 270M"),
    *("Phi-3 mini 4k", "Phi-3.5 mini"),
)
QUICK = [("Qwen3 0.6B", "auto")]
AT_ONCE, STEPS = 16, 4  # tokens behind a cache that ends half as many in front of a limit
WHOLE = 640  # tokens of the longest text without a cache


@pytest.fixture(scope="module")
def checkpoint(once, language_texts):
    """Name -> the published folder and the checkpoint read from it."""

    def get(name):
        def build(folder):
            for each in ("published", "checkpoint"):
                (folder / each).mkdir()
            write_model(folder / "published", name, write_bpe(folder / "published", language_texts))
            import_model(CausalLMModel(source=f"path:{folder / 'published'}"), folder / "checkpoint")

        return once(f"zoo-{name}", build)

    return get


def whole(stock, decoder, tokens):
    """Logits of a text by both, the graph's last tokens one by one."""
    ids = np.random.default_rng(0).integers(2, 300, tokens)
    decoder.reset()
    found = np.concatenate([decoder.run(part) for part in np.split(ids, [-3, -2, -1])])
    return stock(torch.from_numpy(ids[None])).logits[0], found


def behind(stock, decoder, start, window):
    """The same behind `start` tokens in stock transformers' own cache. Those that leave the window are loud,
    or thousands of others would hide whether they still count."""
    random, past = np.random.default_rng(1), {}
    kept = transformers.DynamicCache(config=stock.config)
    for layer in range(stock.config.num_hidden_layers):
        name = f"past_key_values.{layer}."
        shape = (1, *decoder.inputs[f"{name}key"].shape[1:2], start, *decoder.inputs[f"{name}key"].shape[3:])
        keys, values = (random.standard_normal(shape, dtype=np.float32) for _ in range(2))
        values[:, :, max(0, start - window) :][:, :, : AT_ONCE + STEPS] *= max(1, min(start, window) / 16)
        past |= {f"{name}key": keys, f"{name}value": values}
        kept.update(torch.from_numpy(keys), torch.from_numpy(values), layer)
    decoder.fill(past)
    wanted, found = [], []
    for part in np.split(random.integers(2, 300, AT_ONCE + STEPS), range(AT_ONCE, AT_ONCE + STEPS)):
        positions = torch.arange(start, start + len(part))[None]
        ids = torch.from_numpy(part[None])
        wanted.append(stock(ids, position_ids=positions, past_key_values=kept, use_cache=True).logits[0])
        found.append(decoder.run(part))
        start += len(part)
    return torch.cat(wanted), np.concatenate(found)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=[] if (name, kind) in QUICK else pytest.mark.slow)
        for name in PUBLISHED
        for kind in GRAPHS
        if kind == "auto" or name in PLAIN
    ],
)
@pytest.mark.filterwarnings("ignore:`past_key_values` is deprecated")  # not in transformers 4
@torch.no_grad()
def test_a_published_configuration(name, kind, checkpoint, splits_folder, tmp_path):
    folder = checkpoint(name)
    export(GRAPHS[kind], folder / "checkpoint", splits_folder, tmp_path)
    [gate] = read_result(tmp_path).gates
    crossed = {int(key[8:]): each for key, each in gate.numbers.items() if key.startswith("crosses_")}
    assert crossed == CROSSED[name]
    stock = transformers.AutoModelForCausalLM.from_pretrained(folder / "published").eval()
    limits = [limit for limit, was in crossed.items() if was]
    decoder = Decoder(tmp_path / "model.onnx", capacity=max([WHOLE, *(each + 32 for each in limits)]))
    assert decoder.fused == (kind == "auto")
    window = getattr(stock.config, "sliding_window", None) or 2**30
    pairs = [whole(stock, decoder, min(WHOLE, window + 32) if window < WHOLE else 200)]
    for limit in limits:
        start = min(limit - AT_ONCE // 2, stock.config.max_position_embeddings - AT_ONCE - STEPS)
        pairs.append(behind(stock, decoder, start, window))
    for wanted, found in pairs:
        scale = max(1.0, float(wanted.abs().max()))
        np.testing.assert_allclose(found, wanted.numpy(), atol=5e-5 * scale, rtol=0)
