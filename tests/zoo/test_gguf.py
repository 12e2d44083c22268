"""GGUF files are read as their originals are by stock transformers, or refused by name."""

import numpy as np
import pytest
import torch
import transformers

from compress.config.model import CausalLMModel
from compress.errors import GateError, ModelError
from compress.tasks import import_model
from compress.tasks.language_modeling import stock_gguf
from compress.tasks.language_modeling.generation import end_tokens
from compress.tasks.language_modeling.model import CausalLM
from compress.tasks.reading import TEXTS
from tests.zoo import gguf as files
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


def keys_set(values):
    """Changes keys that the file has, or adds them; None takes one away."""

    def change(writer):
        add = {str: writer.add_string, int: writer.add_uint32, list: writer.add_array}
        for name, value in values.items():
            writer.kv_data[0].pop(name, None)
            if value is not None:
                add[type(value)](name, value)

    return change


def renamed(*texts, **named):
    """A file whose tokens from 300 on have these texts, of no mark's type; `named` are keys of its tokens."""

    def change(writer):
        tokens = list(writer.kv_data[0]["tokenizer.ggml.tokens"].value)
        tokens[300 : 300 + len(texts)] = texts
        merges = [
            each
            for each in writer.kv_data[0]["tokenizer.ggml.merges"].value
            if {*each.split(), each.replace(" ", "")} <= {*tokens}
        ]
        ids = {f"tokenizer.ggml.{name}_token_id": number for name, number in named.items()}
        keys_set({"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.merges": merges, **ids})(writer)

    return files._model(more=change, num_hidden_layers=1)


ENDS = {
    "a turn": (renamed("<|im_end|>", "<|endoftext|>", "plain"), [0, 300, 301]),
    "a turn of Gemma": (renamed("<end_of_turn>", "<eos>", eos=301), [0, 300, 301]),
    "a turn of Phi": (renamed("_<EOT>", "<|eom_id|>", eot=5), [0, 5, 300, 301]),
    "code": (renamed("<|fim_pad|>", "<|file_sep|>", fim_pad=7), [0, 7, 301]),
    "calls of tools": (renamed("<|return|>", "<|call|>"), [300, 301]),
    "no turn, though it looks so": (renamed("<|tool_response>", "</s>"), [0, 300]),
    "no mark": (renamed(eos=2**32 - 1, bos=2**32 - 1, padding=2**32 - 1), [0]),
}


@pytest.mark.parametrize("name", ENDS)
def test_what_ends_a_text_is_what_llama_cpp_ends_it_at(name, tmp_path):
    """Token 0 is <|end|>; the right numbers are those of its `special_eog_ids`, by hand."""
    make, ends = ENDS[name]
    path, _ = imported(make, tmp_path)
    assert sorted(end_tokens(tmp_path / "out")) == ends
    assert stock_gguf.read(str(path), NOTHING)["ends/of what is generated"].tolist() == ends


SPOKEN = {
    "json": ("{% for m in messages %}{{ m.content ~ '<&>' | tojson }}{% endfor %}", 'a cat"<&>"'),
    "a block of the answer": ("{{ messages[0].content }}{% generation %}x{% endgeneration %}", "a catx"),
    "no tools": ("{% if tools is none %}A{% endif %}{% if documents is none %}B{% endif %}", "AB"),
    "marks": ("{{ unk_token }}{{ pad_token }}{{ eos_token }}", "<unk><|end|>"),
}


@pytest.mark.parametrize("name", SPOKEN)
def test_a_template_is_rendered_as_transformers_does(name, tmp_path):
    template, expected = SPOKEN[name]
    make = files._model(more=lambda writer: writer.add_chat_template(template), num_hidden_layers=1)
    path, model = imported(make, tmp_path)
    told = stock_gguf.read(str(path), {**NOTHING, "chats": {"chat": "a cat"}})["tokens/chat"]
    assert told.tolist() == model.tokenize(expected)
