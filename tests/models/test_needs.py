"""What a run takes, told before it starts."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from compress.cli import main as cli
from compress.cli.preflight import needed
from compress.config.compose import load_config
from compress.errors import ModelError
from compress.models.needs import Needs, check_disk, size_of


def write(folder, dtype):
    save_file({"a": torch.zeros(10, 3, dtype=dtype)}, folder / "model-1.safetensors")
    save_file({"b": torch.zeros(7, dtype=dtype)}, folder / "model-2.safetensors")
    places = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


@pytest.mark.parametrize(("dtype", "disk"), [(torch.bfloat16, 4 * 37), (torch.float32, 8 * 37)])
def test_all_shards_count_in_float32(dtype, disk, tmp_path):
    write(tmp_path, dtype)
    size = size_of(tmp_path)
    assert size.held_whole() == Needs(4 * 37, disk)
    assert size.largest == 4 * 30


def test_what_is_widened_by_parts_needs_two_of_the_largest_and_what_ships_twice(tmp_path):
    write(tmp_path, torch.bfloat16)
    assert size_of(tmp_path).widened_by_parts(4) == Needs(2 * 4 * 30, 2 * 37 // 2)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], Needs(240, 74)),
        (["quantize=int4_blocks"], Needs(240, 37)),
        (["quantize=mixed_blocks", "quantize.max_kl=1", "export=auto"], Needs(240, 37)),
        *(([word], Needs(148, 74)) for word in ("prune=narrow_llm", "export=torch", "quantize=int8_smooth")),
        *(([word], Needs(148, 74)) for word in ("quantize=none", "evaluate.on_target=true")),
        (["quantize.fit_steps=1"], Needs(148, 74)),
    ],
)
def test_a_large_model_is_held_whole_by_some_options_alone(words, expected, tmp_path, monkeypatch):
    write(tmp_path, torch.bfloat16)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    config = load_config(["experiment=smollm2", "model=causal_lm", f"model.source=path:{tmp_path}", *words])
    assert needed(config) == Needs(148, 148)
    monkeypatch.setattr("compress.models.needs.LARGE", 148)
    assert needed(config) == expected
    (tmp_path / "config.json").write_text('{"model_type": "olmo2"}')  # the builder does not know it
    assert needed(config) == Needs(148, 148)


def test_a_disk_may_hold_the_results_of_the_run_already():
    check_disk(Needs(0, 100), free=40, kept=60)
    with pytest.raises(ModelError, match="disk is too full"):
        check_disk(Needs(0, 100), free=40, kept=59)


def test_a_damaged_shard_is_named(tmp_path):
    write(tmp_path, torch.float32)
    (tmp_path / "model-2.safetensors").write_bytes(b"x" * 40)
    with pytest.raises(ModelError, match=r"model-2\.safetensors is damaged"):
        size_of(tmp_path)


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
@pytest.mark.parametrize("bad", ["a shard is missing", "too large", "a full disk"])
def test_what_cannot_run_is_refused_before_anything_starts(
    bad, dry, language_published, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "model"
    shutil.copytree(language_published["llama"], folder)
    if bad == "too large":
        monkeypatch.setattr("compress.models.needs.machine_memory", lambda: 1000)
    elif bad == "a full disk":
        monkeypatch.setattr("compress.cli.preflight.disk", lambda: (1000, 0))
    else:
        (folder / "model.safetensors").unlink()
        write(folder, torch.float32)
        (folder / "model-2.safetensors").unlink()
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    words = ["run", *dry, "experiment=smollm2", "model=causal_lm", f"model.source=path:{folder}"]
    assert cli.main(words) == 1
    said = capsys.readouterr().err
    wrong = {"too large": "larger than this machine's memory", "a full disk": "the disk is too full"}
    assert wrong.get(bad, "model-2.safetensors") in said
    assert not (tmp_path / "cache" / "store" / "entries").exists()
