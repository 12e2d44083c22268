"""Language models of ours in OpenVINO: what each export and quantizer writes is read, and answers alike."""

import numpy as np
import pytest

from compress.config.quantize import Int4Blocks, Int8Blocks, Int8Smooth
from compress.config.target import OpenvinoTarget
from compress.errors import BenchmarkError
from compress.graph.session import open_session
from compress.quantize import quantize
from compress.targets import open_target
from compress.targets.outputs import outputs

pytest.importorskip("openvino")
QUICK = {"max_kl": 100.0, "min_sqnr_db": 0.0}
QUANTIZERS = {
    "float": None,
    "int8_blocks": Int8Blocks(block_size=32, accuracy_level=0, max_kl=100.0),
    "int4_blocks": Int4Blocks(block_size=16, accuracy_level=0, windows=4, **QUICK),
    "int8_smooth": Int8Smooth(windows=4, max_kl=100.0, layer_kl=1.0),
}


def feeds(session, batch: int, past: int, new: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(past)
    made = {
        "input_ids": random.integers(2, 14, (batch, new)),
        "attention_mask": np.ones((batch, past + new), np.int64),
        "position_ids": np.broadcast_to(np.arange(past, past + new), (batch, new)),
    }
    for each in session.get_inputs():
        if each.name.startswith("past_key_values."):
            size = (batch, each.shape[1], past, each.shape[3])
            made[each.name] = random.standard_normal(size).astype(np.float32)
    return {each.name: made[each.name] for each in session.get_inputs() if each.name in made}


# OpenVINO rounds what byte and 4-bit weights are multiplied with to bytes, as onnxruntime does at level 4.
NEAR = {"float": 1e-4, "int8_blocks": 0.05, "int4_blocks": 0.05, "int8_smooth": 0.1}


@pytest.mark.parametrize("quantizer", QUANTIZERS)
@pytest.mark.parametrize("fused", [True, False], ids=["genai", "torch"])
def test_a_prompt_and_a_token_after_it(
    fused, quantizer, language_graphs, language_checkpoints, splits_folder, tmp_path
):
    folder, config = language_graphs("llama", fused), QUANTIZERS[quantizer]
    if config is not None:
        quantize(config, ("avx512_vnni",), folder, language_checkpoints["llama"], splits_folder, tmp_path)
        folder = tmp_path
    session = open_session(folder / "model.onnx")
    sizes = ((1 if fused else 2, 0, 6), (1, 5, 1), (1, 5, 3))
    batches = [feeds(session, *each) for each in sizes]
    names = [each.name for each in session.get_outputs()]
    found = outputs(open_target(OpenvinoTarget(threads=1)), folder / "model.onnx", batches)
    for batch, given in zip(batches, found, strict=True):
        for name, wanted in zip(names, session.run(names, batch), strict=True):
            allowed = NEAR[quantizer] * np.abs(wanted).max()
            np.testing.assert_allclose(given[name], wanted, rtol=0, atol=allowed, err_msg=name)


def test_texts_side_by_side_in_a_fused_graph_are_refused(language_graphs):
    """OpenVINO's GroupQueryAttention takes one; of more it gives an error, or nothing."""
    graph = language_graphs("llama", True) / "model.onnx"
    batch = feeds(open_session(graph), 2, 0, 6)
    with pytest.raises(BenchmarkError, match=r"OpenVINO (gives|cannot)(.|\n)*next:.*export="):
        list(outputs(open_target(OpenvinoTarget(threads=1)), graph, [batch]))
