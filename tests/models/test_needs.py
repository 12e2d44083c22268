"""What a run takes, told before it starts."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from compress.cli import main as cli
from compress.errors import ModelError
from compress.models.needs import needs_of


def write(folder, dtype):
    save_file({"a": torch.zeros(10, 3, dtype=dtype)}, folder / "model-1.safetensors")
    save_file({"b": torch.zeros(7, dtype=dtype)}, folder / "model-2.safetensors")
    places = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


@pytest.mark.parametrize(("dtype", "disk"), [(torch.bfloat16, 4 * 37), (torch.float32, 12 * 37)])
def test_all_shards_count_in_float32(dtype, disk, tmp_path):
    write(tmp_path, dtype)
    needs = needs_of(tmp_path)
    assert (needs.memory, needs.disk) == (4 * 37, disk)


def test_a_damaged_shard_is_named(tmp_path):
    write(tmp_path, torch.float32)
    (tmp_path / "model-2.safetensors").write_bytes(b"x" * 40)
    with pytest.raises(ModelError, match=r"model-2\.safetensors is damaged"):
        needs_of(tmp_path)


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
@pytest.mark.parametrize("bad", ["a shard is missing", "too large"])
def test_what_cannot_run_is_refused_before_anything_starts(
    bad, dry, language_published, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "model"
    shutil.copytree(language_published["llama"], folder)
    if bad == "too large":
        monkeypatch.setattr("compress.models.needs.machine_memory", lambda: 1000)
    else:
        (folder / "model.safetensors").unlink()
        write(folder, torch.float32)
        (folder / "model-2.safetensors").unlink()
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    words = ["run", *dry, "experiment=smollm2", "model=causal_lm", f"model.source=path:{folder}"]
    assert cli.main(words) == 1
    said = capsys.readouterr().err
    assert ("larger than this machine's memory" if bad == "too large" else "model-2.safetensors") in said
    assert not (tmp_path / "cache" / "store" / "entries").exists()
