"""Checkpoint folders: what is read, what is refused, and that nothing is unpickled."""

import json
import os
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from compress import tasks
from compress.config.model import EncoderModel
from compress.errors import ModelError
from compress.models.checkpoint import Facts, check_weights, copy_companions, read_facts, write_facts

FACTS = Facts(task="sentence_embedding", source="path:x", base_model="x", license="mit")


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_facts_survive_writing(tmp_path):
    facts = FACTS.after("first").after("second", kept_tokens=(8, 16), kept_layers=(0, 2))
    write_facts(facts, tmp_path)
    assert read_facts(tmp_path) == facts
    assert facts.lineage == ("first", "second")
    assert FACTS.lineage == ()


@pytest.mark.parametrize("content", [None, "{", "{}", '{"family": 3}'])
def test_a_folder_without_our_facts_is_no_checkpoint(content, tmp_path):
    if content is not None:
        (tmp_path / "compress.json").write_text(content)
    with pytest.raises(ModelError, match=r"not a checkpoint\n  found.*\n  allowed.*\n  next"):
        tasks.load(tmp_path)


@pytest.mark.parametrize("key", ["task", "family"])
def test_a_task_of_another_release(key, tmp_path):
    (tmp_path / "compress.json").write_text(
        json.dumps({key: "sentence_embeddings", "source": "", "base_model": "", "license": ""})
    )
    with pytest.raises(ModelError, match="did you mean 'sentence_embedding'"):
        tasks.load(tmp_path)


@pytest.mark.parametrize(
    ("family", "task"),
    [
        ("encoder", "sentence_embedding"),
        ("image_classifier", "image_classification"),
        ("causal_lm", "language_modeling"),
    ],
)
def test_checkpoints_of_earlier_releases_name_their_task(family, task, tmp_path):
    content = {"family": family, "source": "", "base_model": "", "license": "", "kept_layers": [0, 2]}
    (tmp_path / "compress.json").write_text(json.dumps(content))
    assert tasks.task_of(tmp_path) == task
    assert read_facts(tmp_path).kept_layers == (0, 2)


def test_only_companions_are_copied(published, copy_of, tmp_path):
    source = copy_of(published["bert"])
    modules = [{"path": path} for path in ("", "pool/first", "../outside", "/outside", "none")]
    (source / "modules.json").write_text(json.dumps(modules))
    for folder in (source / "pool" / "first", source / "1_Pooling", source.parent / "outside"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text("{}")
    (source / "sentence_roberta_config.json").write_text("{}")
    (source / "special_tokens_map.json").write_text("{}")  # of releases before transformers 5
    (source / "notes.txt").write_text("mine")
    (tmp_path / "out").mkdir()
    copy_companions(source, tmp_path / "out")
    found = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*"))
    expected = [
        "modules.json",
        "pool/first/config.json",
        "sentence_roberta_config.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert found == expected


def test_a_pickle_is_refused_and_never_opened(published, copy_of, tmp_path):
    folder, trap = copy_of(published["bert"]), tmp_path / "trapped"
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Malicious(trap)))
    with pytest.raises(ModelError, match=r"pytorch_model\.bin.*\n  allowed: model\.safetensors\n  next"):
        tasks.import_model(EncoderModel(source=f"path:{folder}"), tmp_path / "out")
    assert not trap.exists()
    pickle.loads((folder / "pytorch_model.bin").read_bytes())
    assert trap.exists()  # the trap works


def test_a_pickle_beside_safetensors_is_left_alone(published, copy_of, tmp_path):
    folder, trap = copy_of(published["bert"]), tmp_path / "trapped"
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Malicious(trap)))
    tasks.import_model(EncoderModel(source=f"path:{folder}"), tmp_path / "out")
    assert not trap.exists()
    assert not (tmp_path / "out" / "pytorch_model.bin").exists()


def test_no_weights_at_all(published, copy_of):
    folder = copy_of(published["bert"])
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no safetensors weights.*\n  found:   none"):
        check_weights(folder)


def test_no_config(published, copy_of, tmp_path):
    folder = copy_of(published["bert"])
    (folder / "config.json").unlink()
    with pytest.raises(
        ModelError, match=r"no model in .*\n  found: .*model\.safetensors.*\n  allowed: .*config"
    ):
        tasks.import_model(EncoderModel(source=f"path:{folder}"), tmp_path / "out")


@pytest.mark.parametrize("size", [0, 5, 300, -1])
def test_truncated_weights(size, published, copy_of, tmp_path):
    folder = copy_of(published["bert"])
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ModelError, match=r"model\.safetensors is damaged.*\n  found: .*bytes.*\n  next"):
        tasks.import_model(EncoderModel(source=f"path:{folder}"), tmp_path / "out")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite(value, published, copy_of, tmp_path):
    folder = copy_of(published["bert"])
    weights = load_file(folder / "model.safetensors")
    weights["encoder.layer.1.output.dense.bias"][3] = value
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"not finite\n  found: .*layer\.1\.output\.dense\.bias\n  next"):
        tasks.import_model(EncoderModel(source=f"path:{folder}"), tmp_path / "out")


def test_half_precision_weights_become_float32(published, copy_of, tmp_path):
    folder = copy_of(published["bert"])
    weights = {k: v.half() for k, v in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    tasks.import_model(EncoderModel(source=f"path:{folder}"), tmp_path / "out")
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float32}
    assert all(torch.equal(stored[name], tensor.float()) for name, tensor in weights.items())


def test_weights_in_eight_bits_are_refused(tmp_path):
    save_file({"linear.weight": torch.ones(2, 2).to(torch.float8_e4m3fn)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"quantized weights\n.*float8_e4m3fn in linear.weight"):
        check_weights(tmp_path)
