"""Texts longer than a language model has, or than memory holds, are refused before anything starts."""

import json

import pytest

from compress.cli import main as cli
from compress.config.compose import load_config
from compress.errors import ModelError
from compress.models.lengths import Shape, check_lengths, shape_of
from compress.schema.workload import Workload

SMOLLM2 = {
    "model_type": "llama",
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "hidden_size": 576,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
}


def check(*words, plain=True, **changes):
    config = load_config(["experiment=smollm2", *words])
    check_lengths(config, {**SMOLLM2, **changes}, plain)


def test_what_texts_of_a_length_take_by_hand():
    shape = shape_of(SMOLLM2)
    assert shape == Shape(layers=30, heads=9, kv_heads=3, head_size=64, vocabulary=49152)
    assert shape.window_bytes(512) == 2 * 512 * 49152 * 4
    cache = 30 * 2 * 3 * 64 * 4  # bytes of a token
    assert shape.call_bytes(Workload.parse("2x1+99"), plain=False) == 2 * 100 * cache
    of_plain = 2 * 100 * cache + 4 * 2 * (49152 + 9 * 100)
    assert shape.call_bytes(Workload.parse("2x1+99"), plain=True) == of_plain
    assert shape_of({**SMOLLM2, "head_dim": 32}).head_size == 32
    assert shape_of({"model_type": "llama"}) is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["evaluate.context=9000"], "evaluate.context=9000(.|\n)*at most 8192(.|\n)*evaluate.stride=512"),
        (["recover=distill_logits", "recover.context=9000"], "recover.context=9000(.|\n)*at most 8192"),
        (["benchmark.workloads=[1x128,1x9000]"], "has 1x9000: 9000 tokens(.|\n)*at most 8192(.|\n)*1x8192"),
        (["benchmark.workloads=[2x1+8192]"], r"has 2x1\+8192: 8193 tokens(.|\n)*2x1\+8191"),
    ],
)
def test_more_tokens_than_the_model_has(words, said):
    with pytest.raises(ModelError, match=said):
        check(*words)
    check(*words, max_position_embeddings=32768)


@pytest.mark.parametrize(
    ("word", "what"),
    [
        ("evaluate.context=8192", r"evaluate.context=8192: at least 3\.2 GB"),  # of logits, twice
        ("benchmark.workloads=[1x8192]", r"workload 1x8192: at least 4\.4 GB"),  # scores 2.4, logits 1.6
        ("benchmark.workloads=[8x1+8191]", r"workload 8x1\+8191: at least 3\.0 GB"),  # cache
    ],
)
def test_more_than_memory_holds(word, what, monkeypatch):
    check(word)
    monkeypatch.setattr("compress.models.lengths.machine_memory", lambda: 2_900_000_000)
    with pytest.raises(ModelError, match=f"texts of that length(.|\n)*{what}(.|\n)*2\\.9 GB"):
        check(word)
    if "1x8192" in word:
        check(word, plain=False)  # where fused graphs alone are timed, which make logits of one token


def test_it_is_said_before_anything_is_read(tmp_path, monkeypatch, capsys):
    (tmp_path / "config.json").write_text(json.dumps(SMOLLM2))
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    words = ["experiment=smollm2", "model=causal_lm", f"model.source=path:{tmp_path}"]
    assert cli.main(["run", "--dry-run", *words, "benchmark.workloads=[1x1+8192]"]) == 1
    assert "the workload is longer than the model's context" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
