"""One key of a GGUF file is changed, or one that the library gguf knows is added: what we read then is what
the numpy reader reads, or refused."""

import collections
import random
import warnings
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from compress.errors import CompressError
from compress.tasks.language_modeling import stock_gguf
from tests.zoo import gguf as files
from tests.zoo.both_readings import TEXTS, Ours

KINDS = ("llama", "qwen2", "qwen3", "gemma3_text", "phi3", "smollm3")
TOKENS = 300  # more than the positions of a file
_NESTED = (gguf.Keys.LLM, gguf.Keys.Attention, gguf.Keys.Rope, gguf.Keys.Tokenizer, gguf.Keys.Split)
KNOWN = sorted(
    {
        value
        for group in _NESTED
        for key, value in vars(group).items()
        if isinstance(value, str) and key.isupper()
    }
)
_VALUES: dict[str, tuple[Any, ...]] = {
    "{arch}.rope.scaling.type": ("none", "linear", "yarn", "longrope"),
    "{arch}.attention.sliding_window": (3, 9, 0, 1000),
    "tokenizer.ggml.pre": ("default", "llama-bpe", "qwen2", "smollm", "gpt-2", "tekken"),
    "tokenizer.ggml.model": ("llama", "gpt2", "bert", "t5"),
}
_NUMBERS = (0, 1, 2, 0.5, 4.0, True, False)


def altered(writer: Any, rng: random.Random) -> str:
    """One key of those written so far is removed or has another value, or another key is added."""
    keys = writer.kv_data[0]
    pattern = (
        rng.choice(KNOWN)
        if rng.random() < 0.6
        else rng.choice([name for name in keys if "tokens" not in name])
    )
    name = pattern.format(arch=writer.arch, id=0, name="x", dense="x")
    given = keys.pop(name, None)
    if given is not None and rng.random() < 0.2:
        return f"{name} removed"
    known = _VALUES.get(pattern.replace(writer.arch, "{arch}"))
    value = given.value if given is not None else 0
    if known:
        value = rng.choice(known)
    elif isinstance(value, list):
        value = [*value[:-2], *reversed(value[-2:])]
    elif isinstance(value, str):
        value = f"{value}x"
    elif given is None:
        value = rng.choice(_NUMBERS)
    else:
        value = rng.choice((value * 2, value / 2 if isinstance(value, float) else value // 2, value + 1))
    add = {str: writer.add_string, bool: writer.add_bool, float: writer.add_float32, list: writer.add_array}
    add.get(type(value), writer.add_uint32)(name, value)
    return f"{name} = {str(value)[:40]}"


def probes() -> dict[str, Any]:
    ids = np.random.default_rng(3).integers(3, 300, TOKENS).tolist()
    spans = {"a beginning": 9, "a context": 256}
    named = {f"text {number}": text for number, text in enumerate(TEXTS)}
    return {
        "texts": named,
        "with_marks": {"marked": TEXTS[0]},
        "chats": {},
        "ids": {name: ids[:span] for name, span in spans.items()},
        "positions": {name: list(range(span)) for name, span in spans.items()},
    }


def answers(out: Path) -> dict[str, np.ndarray]:
    from compress.tasks.language_modeling.model import CausalLM

    model, asked = CausalLM.open(out), probes()
    read = model.processor.tokenizer
    found = {f"tokens/{name}": np.array(read.plain(text), int) for name, text in asked["texts"].items()}
    found |= {
        f"tokens/{n}": np.array(read.encode([text], 10**9)[0]) for n, text in asked["with_marks"].items()
    }
    for name, ids in asked["ids"].items():
        with torch.no_grad():
            found[f"outputs/{name}"] = model.run({"input_ids": torch.tensor([ids])})[0, -8:].numpy()
    return found


def outcome(kind: str, rng: random.Random, folder: Path) -> tuple[str, str]:
    """What came of a change, and the change."""
    told: list[str] = []
    path = files._model(kind, lambda writer: told.append(altered(writer, rng)))(folder)
    ours = Ours("language_modeling", path, folder / "out")
    try:
        ours.read_only()
    except CompressError:
        return "refused", f"{kind}: {told[0]}"
    except Exception as error:
        return "TRACEBACK", f"{kind}: {told[0]}: {type(error).__name__}: {error}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of numpy
            theirs = stock_gguf.read(str(path), probes())
    except Exception as error:
        passes = ours.passes_gate()
        return "SILENT" if passes else "gate alone", f"{kind}: {told[0]}: {type(error).__name__}: {error}"
    here = answers(folder / "out")
    for name, values in here.items():
        exact = values.dtype.kind != "f"
        there = theirs[name]
        if values.shape != there.shape or not (
            np.array_equal(values, there)
            if exact
            else np.allclose(values, there, atol=2e-4 * max(1, np.abs(there).max()))
        ):
            passes = ours.passes_gate()
            return "SILENT" if passes else "gate alone", f"{kind}: {told[0]}: {name} differs"
    return "equal", f"{kind}: {told[0]}"


def check(seed: int, count: int, folder: Path) -> None:
    found = []
    for number in range(count):
        scratch = folder / str(number)
        scratch.mkdir()
        found.append(outcome(KINDS[number % len(KINDS)], random.Random(f"{seed} {number}"), scratch))
    print(dict(collections.Counter(kind for kind, _ in found)))
    print("\n".join(f"{kind}: {told}" for kind, told in found if kind != "refused"))
    assert not [each for each in found if each[0] in ("SILENT", "TRACEBACK")]


def test_a_changed_key(tmp_path):
    check(0, 6, tmp_path)


@pytest.mark.slow
def test_many_changed_keys(tmp_path):
    check(1, 80, tmp_path)
