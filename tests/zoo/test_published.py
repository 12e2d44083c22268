"""Language models of published configurations compute in the fused graph what stock transformers computes."""

import numpy as np
import pytest
import torch
import transformers

from compress.config.export import GenaiExport
from compress.config.model import CausalLMModel
from compress.export import export
from compress.graph.decoder import Decoder
from compress.stages.result import read_result
from compress.tasks import import_model
from tests.conftest import write_bpe
from tests.zoo.published import PUBLISHED, write_model

# Tokens that the configuration names -> whether the gate got there; 0: its cache would be larger than 512 MB.
CROSSED = {
    **{key: {8192: 1, 131072: 0} for key in ("Llama 3.2 1B", "Llama 3.1 8B")},
    **{key: {4096: 1} for key in ("Llama 2 7B", "Yi 6B")},
    "Mistral 7B 0.1": {4096: 1, 32768: 1},
    "Qwen3 0.6B": {40960: 0},
    "SmolLM2 135M": {8192: 1},
    "SmolLM3 3B": {65536: 0},
}
QUICK = ("SmolLM2 135M",)


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=[] if each in QUICK else pytest.mark.slow) for each in PUBLISHED]
)
@torch.no_grad()
def test_a_published_configuration(name, language_texts, splits_folder, tmp_path):
    published = tmp_path / "published"
    published.mkdir()
    write_model(published, name, write_bpe(published, language_texts))
    for each in ("checkpoint", "graph"):
        (tmp_path / each).mkdir()
    import_model(CausalLMModel(source=f"path:{published}"), tmp_path / "checkpoint")
    export(GenaiExport(), tmp_path / "checkpoint", splits_folder, tmp_path / "graph")
    numbers = read_result(tmp_path / "graph").gates[0].numbers
    crossed = {int(key[8:]): each for key, each in numbers.items() if key.startswith("crosses_")}
    assert crossed == CROSSED[name]
    stock = transformers.AutoModelForCausalLM.from_pretrained(published).eval()
    ids = np.random.default_rng(0).integers(2, 300, 200)
    decoder = Decoder(tmp_path / "graph" / "model.onnx", capacity=256)
    found = np.concatenate([decoder.run(part) for part in np.split(ids, [190, 191, 192])])
    wanted = stock(torch.from_numpy(ids[None])).logits[0].numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-4 * max(1, np.abs(wanted).max()))
