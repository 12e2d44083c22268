"""What the dense model says, kept as hidden states, against its own logits."""

import numpy as np
import pytest
import torch

from compress.tasks.language_modeling.dense_states import load_states, save_states
from compress.tasks.language_modeling.model import CausalLM


@pytest.mark.parametrize("name", ["llama", pytest.param("granite", marks=pytest.mark.slow)])
@torch.no_grad()
def test_logits_are_those_of_the_model(name, language_checkpoints, language_graphs, tmp_path, monkeypatch):
    """Granite's are divided by a number behind the head."""
    monkeypatch.setattr("compress.tasks.language_modeling.dense_states._AT_ONCE", 100)
    path, model = language_graphs(name, False) / "model.onnx", CausalLM.open(language_checkpoints[name])
    windows = [np.arange(5, 25), np.arange(30, 40)]
    save_states(path, windows, tmp_path)
    stored = load_states(path, tmp_path)
    for number, window in enumerate(windows):
        expected = model.run({"input_ids": torch.from_numpy(window[None])})[0].numpy()
        np.testing.assert_allclose(stored.logits(number), expected, atol=1e-5)
