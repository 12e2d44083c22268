"""One value of a language model's config.json is changed: its graphs compute what stock transformers computes
of the same folder, or the gate of the export refuses them."""

import collections
import random
import shutil

import numpy as np
import pytest
import torch
import transformers

from compress.config.export import GenaiExport, TorchExport
from compress.config.model import CausalLMModel
from compress.errors import CompressError
from compress.export import export
from compress.graph.decoder import Decoder
from compress.models.architectures import LANGUAGE_MODELS
from compress.tasks import import_model
from tests.zoo import fuzz
from tests.zoo.both_readings import quiet

SUBJECTS = [
    name
    for name, each in fuzz.SUBJECTS.items()
    if each.task == "language_modeling" and LANGUAGE_MODELS[name.partition(",")[0]].builder
]
TOKENS = 240  # behind every window of the subjects and every length that a rotation is scaled from
EXPORTS = {"fused": GenaiExport(), "plain": TorchExport(fuse=False)}


def outcome(change, original, splits, folder, kind):
    published = fuzz.changed(change, original, folder / "published")
    for name in ("checkpoint", "graph"):
        (folder / name).mkdir()
    with quiet():
        try:
            import_model(CausalLMModel(source=f"path:{published}"), folder / "checkpoint")
        except CompressError:
            return "not read"
        try:
            export(EXPORTS[kind], folder / "checkpoint", splits, folder / "graph")
        except CompressError:
            return "refused by the export"
        stock = transformers.AutoModelForCausalLM.from_pretrained(
            published, dtype=torch.float32, attn_implementation="eager"
        )
        length = min(TOKENS, stock.config.max_position_embeddings)
        ids = np.random.default_rng(0).integers(2, 300, length)
        wanted = stock.eval()(torch.from_numpy(ids[None]), return_dict=True).logits[0].numpy()
    decoder = Decoder(folder / "graph" / "model.onnx", capacity=256)
    parts = np.split(ids, sorted({min(each, length - 1) for each in (length - 40, length - 39, length - 38)}))
    found = np.concatenate([decoder.run(part) for part in parts if len(part)])
    close = np.allclose(found, wanted, rtol=0, atol=2e-4 * max(1, np.abs(wanted).max()))
    return "equal" if close else f"SILENT: {change}: {kind}: {np.abs(found - wanted).max():.3g}"


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", EXPORTS)
@pytest.mark.parametrize("seed", range(2))
def test_graphs_of_changed_configurations(seed, kind, splits_folder, tmp_path):
    found = []
    for number in range(30):
        subject = SUBJECTS[number % len(SUBJECTS)]
        original = tmp_path / subject
        if not original.exists():
            original.mkdir()
            fuzz.SUBJECTS[subject].make(original)
        rng = random.Random(f"{seed} {kind} {number}")
        change = fuzz.of_config(subject, original, rng)
        while change.keys[0] not in fuzz.COMPUTED:
            change = fuzz.of_config(subject, original, rng)
        (tmp_path / "scratch").mkdir()
        found.append(outcome(change, original, splits_folder, tmp_path / "scratch", kind))
        shutil.rmtree(tmp_path / "scratch")
    print(collections.Counter(found))
    assert not [each for each in found if each.startswith("SILENT")]
