"""The fused graph where it passes its gate, else the plain one, with the reason."""

import numpy as np
import pytest
import torch
import transformers

from compress.config.export import AutoExport
from compress.config.model import CausalLMModel
from compress.export import export
from compress.graph.decoder import Decoder
from compress.stages.result import read_result
from compress.tasks import import_model

YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}


def exported(published, splits_folder, folder):
    """The graph for stock transformers' model, once it computes the same behind the original positions."""
    (folder / "checkpoint").mkdir()
    (folder / "graph").mkdir()
    import_model(CausalLMModel(source=f"path:{published}"), folder / "checkpoint")
    export(AutoExport(), folder / "checkpoint", splits_folder, folder / "graph")
    decoder = Decoder(folder / "graph" / "model.onnx", capacity=128)
    ids = np.random.default_rng(0).integers(2, 300, 100)
    found = np.concatenate([decoder.run(part) for part in np.split(ids, [90, 91])])
    stock = transformers.AutoModelForCausalLM.from_pretrained(published).eval()
    with torch.no_grad():
        np.testing.assert_allclose(found, stock(torch.from_numpy(ids[None])).logits[0].numpy(), atol=1e-4)
    return decoder, folder / "graph"


def test_a_fused_graph_that_passes(language_published, splits_folder, tmp_path):
    decoder, graph = exported(language_published["llama"], splits_folder, tmp_path)
    assert decoder.fused
    assert [(gate.name, gate.passed) for gate in read_result(graph).gates] == [("ONNX equals torch", True)]
    assert {each.name for each in graph.iterdir()} == {
        *("model.onnx", "model.onnx_data", "genai_config.json", "stage.json")
    }


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        pytest.param("olmo3", {}, "does not know the architecture (olmo3)", marks=pytest.mark.slow),
        pytest.param(
            "qwen3",
            {"rope_parameters": YARN},
            "cannot export the model (ZeroDivisionError",
            marks=pytest.mark.slow,
        ),
        pytest.param("phi3", {"partial_rotary_factor": 0.5}, "cannot run", marks=pytest.mark.slow),
    ],
)
def test_what_fails_fused_is_plain(
    name, changes, reason, write_language, language_texts, splits_folder, tmp_path
):
    published = write_language(tmp_path / "published", name, language_texts, **changes)
    decoder, graph = exported(published, splits_folder, tmp_path)
    assert not decoder.fused
    fused, plain = read_result(graph).gates
    assert reason in fused.name
    assert "copy the cache" in fused.name
    assert not fused.passed
    assert (plain.name, plain.passed) == ("ONNX equals torch", True)
    assert {each.name for each in graph.iterdir()} == {"model.onnx", "model.onnx_data", "stage.json"}
