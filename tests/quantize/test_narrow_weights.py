"""A checkpoint in bfloat16: its weights stay where they are, and all stages compute what float32 gives."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from safetensors.torch import load_file, save_file

from compress.config.export import GenaiExport
from compress.config.model import CausalLMModel
from compress.config.quantize import Int4Blocks
from compress.export import export
from compress.graph.decoder import Decoder
from compress.graph.weights import FLOATS
from compress.graph.wide import wide as widened
from compress.models.checkpoint import header
from compress.quantize import quantize
from compress.tasks import import_model
from compress.tasks.language_modeling.dense_states import load_states, save_states
from compress.tasks.language_modeling.model import CausalLM

NAMES = ["qwen2", *(pytest.param(name, marks=pytest.mark.slow) for name in ("llama", "phi3", "gemma3_text"))]


@pytest.fixture(params=NAMES)
def both(request, language_published, tmp_path) -> dict[torch.dtype, Path]:
    """The same numbers, all of which bfloat16 has, in checkpoints of either type."""
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        source, out = tmp_path / f"source {dtype}", tmp_path / f"load {dtype}"
        shutil.copytree(language_published[request.param], source)
        out.mkdir()
        for path in source.glob("*.safetensors"):
            weights = {name: each.bfloat16().to(dtype) for name, each in load_file(path).items()}
            save_file(weights, path, {"format": "pt"})
        config = json.loads((source / "config.json").read_text())
        (source / "config.json").write_text(json.dumps(config | {"dtype": str(dtype).removeprefix("torch.")}))
        import_model(CausalLMModel(source=f"path:{source}"), out)
        found[dtype] = out
    return found


@torch.no_grad()
def test_bfloat16_stays_on_disk_and_every_stage_gives_the_bits_of_float32(both, splits_folder, tmp_path):
    wide, narrow = both[torch.float32], both[torch.bfloat16]
    assert {each["dtype"] for each in header(narrow / "model.safetensors").values()} == {"BF16"}
    ids = torch.arange(2, 14)[None]
    logits = CausalLM.open(wide).module(input_ids=ids).logits
    stored = CausalLM.open_stored(narrow)
    assert torch.equal(stored.module(input_ids=ids).logits, logits)
    assert torch.equal(
        stored.module(input_ids=ids).logits, logits
    )  # its weights are narrow again, and all there
    assert {each.dtype for each in stored.module.parameters() if each.dim() > 1} == {torch.bfloat16}

    graphs, small = {}, {}
    for dtype, checkpoint in both.items():
        graphs[dtype], small[dtype] = tmp_path / f"graph {dtype}", tmp_path / f"small {dtype}"
        graphs[dtype].mkdir()
        small[dtype].mkdir()
        export(GenaiExport(), checkpoint, splits_folder, graphs[dtype])
        config = Int4Blocks(block_size=16, windows=2, max_kl=None, min_sqnr_db=-99.0)
        quantize(config, (), graphs[dtype], checkpoint, splits_folder, small[dtype])
    [link] = graphs[torch.bfloat16].glob("*.safetensors")  # of phi3 the embedding and what is not cut apart
    assert link.stat().st_ino == (narrow / "model.safetensors").stat().st_ino
    given = [Decoder(graphs[dtype] / "model.onnx", capacity=16).run(ids[0].numpy()) for dtype in graphs]
    np.testing.assert_allclose(*given, atol=1e-5 * np.abs(given[0]).max())
    path = graphs[torch.bfloat16] / "model.onnx"  # as the baseline of a large model
    save_states(path, [ids[0].numpy()], tmp_path)
    np.testing.assert_allclose(
        load_states(path, tmp_path).logits(0), logits[0], atol=1e-5 * logits.abs().max()
    )
    with widened(graphs[torch.bfloat16], tmp_path) as folder:  # for who sees no weights behind a Cast
        copy = onnx.load(folder / "model.onnx").graph
        assert not {each.data_type for each in copy.initializer} & {*FLOATS[1:]}
        given[1] = Decoder(folder / "model.onnx", capacity=16).run(ids[0].numpy())
    assert not folder.exists()
    np.testing.assert_allclose(*given, atol=1e-5 * np.abs(given[0]).max())
    first, second = (_tensors(small[dtype]) for dtype in both)
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], name)
    nodes = [
        [node.SerializeToString() for node in onnx.load(small[dtype] / "model.onnx").graph.node]
        for dtype in both
    ]
    assert sorted(nodes[0]) == sorted(nodes[1])


def _tensors(folder: Path) -> dict[str, np.ndarray]:
    graph = onnx.load(folder / "model.onnx").graph
    return {each.name: numpy_helper.to_array(each) for each in graph.initializer}
