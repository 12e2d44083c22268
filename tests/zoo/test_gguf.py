"""GGUF files are read as their originals are by stock transformers, or refused by name."""

import numpy as np
import pytest
import torch
import transformers

from compress.config.model import CausalLMModel
from compress.errors import GateError, ModelError
from compress.tasks import import_model
from compress.tasks.language_modeling import stock_gguf
from compress.tasks.language_modeling.model import CausalLM
from compress.tasks.reading import TEXTS
from tests.zoo.gguf import MARKS, MODELS, REFUSED, TOKENIZERS, TRAINED, talking
from tests.zoo.sample import every_second

NOTHING: dict = {name: {} for name in ("texts", "with_marks", "chats", "ids", "positions")}


def imported(make, folder):
    path = make(folder)
    (folder / "out").mkdir()
    import_model(CausalLMModel(source=f"path:{path}"), folder / "out")
    return path, CausalLM.open(folder / "out")


@pytest.mark.parametrize("name", every_second(MODELS))
def test_logits_are_the_originals(name, tmp_path):
    path, model = imported(MODELS[name], tmp_path)
    stock = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "original").eval()
    ids = torch.randint(model.config.vocab_size, (1, 90), generator=torch.Generator().manual_seed(1))
    last = model.config.max_position_embeddings
    for start in (0, last - 90):
        positions = torch.arange(start, start + 90)[None]
        with torch.no_grad():
            expected = stock(ids, position_ids=positions).logits
            assert torch.allclose(model.module(ids, position_ids=positions).logits, expected, atol=2e-4)
        probe = {
            **NOTHING,
            "ids": {"all": ids[0].tolist()},
            "positions": {"all": positions[0].tolist()},
        }
        other = stock_gguf.read(str(path), probe)["outputs/all"]
        assert np.allclose(other, expected[0, -8:].numpy(), atol=2e-4)


@pytest.mark.parametrize("name", every_second(TOKENIZERS))
def test_tokens_are_the_originals(name, tmp_path):
    path, model = imported(TOKENIZERS[name], tmp_path)
    stock = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path / "original")
    texts = {
        **TEXTS,
        "trained": TRAINED[-1],
        "marks": "a<|end|> b <unk>\n<table>",
        "word": "the mats",
        "empty": "",
    }
    told = stock_gguf.read(str(path), {**NOTHING, "texts": texts})
    for name, text in texts.items():
        expected = stock(text, add_special_tokens=False)["input_ids"]
        assert model.tokenize(text) == expected
        assert told[f"tokens/{name}"].tolist() == expected
        assert model.tokenizer.decode(expected) == stock.decode(expected)


def test_marks_chats_and_ends_are_those_of_the_file(tmp_path):
    """The last are of a text and of a turn."""
    path, model = imported(talking, tmp_path)
    begin, end = MARKS[1], MARKS[0]
    chat = model.tokenizer.apply_chat_template([{"role": "user", "content": "a cat"}], tokenize=False)
    assert chat == f"{begin}user: a cat{end}"
    assert model.tokenizer("a")["input_ids"] == [1, *model.tokenize("a"), 0]
    assert model.config.eos_token_id == [0, 2]
    probes = {**NOTHING, "with_marks": {"a": "a"}, "chats": {"chat": "a cat"}}
    told = stock_gguf.read(str(path), probes)
    assert told["tokens/a"].tolist() == [1, *model.tokenize("a"), 0]
    assert told["tokens/chat"].tolist() == model.tokenize(chat)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_by_name(name, tmp_path):
    make, said = REFUSED[name]
    with pytest.raises((ModelError, GateError), match=said):
        imported(make, tmp_path)
