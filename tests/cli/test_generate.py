"""`compress generate`: text from an artifact, and the errors of those that hold none."""

import json
import shutil
from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer

from compress.cli.generate import Request, Timing, generate
from compress.cli.main import main
from compress.errors import ArtifactError, ConfigError
from tests.shipped import greedy, ship_tiny

CONTEXT = 12


def _unchecked(artifact, beside):
    return SimpleNamespace(name="m", environment={})


@pytest.fixture(scope="module")
def shipped(tmp_path_factory, tiny_lm):
    return ship_tiny(tmp_path_factory.mktemp("lm"), tiny_lm, CONTEXT)


def write(shipped, **request):
    pieces = []
    timing = generate(shipped, Request(**request), pieces.append)
    return "".join(pieces).split(), timing


def test_the_most_likely_tokens(shipped, tiny_lm):
    found, timing = write(shipped, prompt="w5 w3 w9", max_new_tokens=6)
    assert found == [f"w{number}" for number in greedy(tiny_lm, [5, 3, 9], 6)]
    assert (timing.prompt_tokens, timing.new_tokens, timing.full) == (3, 6, False)
    assert timing.first_seconds > 0
    assert timing.rest_seconds > 0


def test_a_text_of_as_many_tokens_as_the_context_holds(shipped, tiny_lm):
    """The last token need not be read: one more than the context comes out."""
    found, timing = write(shipped, prompt="w5 w3 w9", max_new_tokens=100)
    assert found == [f"w{number}" for number in greedy(tiny_lm, [5, 3, 9], CONTEXT - 2)]
    assert timing.full
    found, timing = write(shipped, prompt=" ".join(["w7"] * CONTEXT), max_new_tokens=5)
    assert len(found) == timing.new_tokens == 1


def test_an_end_token_ends_it(shipped, tiny_lm, tmp_path, monkeypatch):
    monkeypatch.setattr("compress.serve.shipped.check_files", _unchecked)
    other = shutil.copytree(shipped, tmp_path / "other")
    numbers = greedy(tiny_lm, [5, 3, 9], 4)
    end = numbers[2]
    (other / "generation_config.json").write_text(json.dumps({"eos_token_id": [end]}))
    found, timing = write(other, prompt="w5 w3 w9", max_new_tokens=4)
    assert found == [f"w{number}" for number in numbers[: numbers.index(end)]]
    assert timing.new_tokens == numbers.index(end) + 1


def test_what_trainers_leave_in_a_tokenizer_neither_cuts_nor_fills_prompts(shipped, tmp_path, monkeypatch):
    monkeypatch.setattr("compress.serve.shipped.check_files", _unchecked)
    other = shutil.copytree(shipped, tmp_path / "other")
    tokenizer = Tokenizer.from_file(str(other / "tokenizer.json"))
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=5, pad_token="w1", pad_id=1)
    tokenizer.save(str(other / "tokenizer.json"))
    assert write(other, prompt="w5 w3 w9")[0] == write(shipped, prompt="w5 w3 w9")[0]
    assert write(other, prompt="w5 w3 w9")[1].prompt_tokens == 3


def test_a_seed_repeats_what_was_drawn(shipped):
    draws = [
        write(shipped, prompt="w1", max_new_tokens=8, temperature=9.0, seed=seed)[0] for seed in (1, 1, 2)
    ]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"prompt": " "}, "prompt is empty"),
        ({"max_new_tokens": 0}, "--max-new-tokens"),
        ({"temperature": -1.0}, "--temperature"),
        ({"temperature": float("nan")}, "--temperature"),
        ({"top_p": 1.5}, "--top-p"),
        ({"seed": -1}, "--seed"),
    ],
)
def test_wrong_requests(changes, match):
    with pytest.raises(ConfigError, match=match):
        Request(**{"prompt": "x", **changes})


def test_a_prompt_longer_than_the_context(shipped):
    with pytest.raises(ConfigError, match=f"{CONTEXT + 1} tokens"):
        write(shipped, prompt=" ".join(["w7"] * (CONTEXT + 1)))


def test_what_is_no_language_model(shipped, tmp_path, monkeypatch):
    with pytest.raises(ArtifactError, match="no artifact"):
        write(tmp_path, prompt="x")
    other = shutil.copytree(shipped, tmp_path / "other")
    (other / "model.onnx_data").write_bytes(b"")
    with pytest.raises(ArtifactError, match="not the file that was shipped"):
        write(other, prompt="x")
    monkeypatch.setattr("compress.serve.shipped.check_files", _unchecked)
    (other / "config.json").write_text("{}")
    with pytest.raises(ArtifactError, match="holds no language model"):
        write(other, prompt="x")
    (other / "config.json").write_text('{"max_position_embeddings": 8}')
    (other / "tokenizer.json").unlink()
    with pytest.raises(ArtifactError, match="holds no language model"):
        write(other, prompt="x")


def test_text_goes_to_stdout_and_times_to_stderr(shipped, tiny_lm, capsys):
    assert main(["generate", str(shipped), "--prompt", "w5 w3 w9", "--max-new-tokens", "3"]) == 0
    said = capsys.readouterr()
    assert said.out.split() == [f"w{number}" for number in greedy(tiny_lm, [5, 3, 9], 3)]
    assert said.err.startswith("3 tokens after a prompt of 3; time to first token")
    assert main(["generate", str(shipped), "--prompt", ""]) == 1
    assert "the prompt is empty" in capsys.readouterr().err


def test_a_timing_in_words():
    timing = Timing(prompt_tokens=5, new_tokens=11, first_seconds=0.05, rest_seconds=0.5, full=True)
    words = "11 tokens after a prompt of 5; time to first token 50 ms, then 20.0 tokens/s"
    assert timing.text() == f"{words}; the model's context is full"
