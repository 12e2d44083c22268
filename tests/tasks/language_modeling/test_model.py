"""Language models: opened, fed, saved; and what is wrong with a folder is said."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from compress.config.model import CausalLMModel
from compress.errors import DataError, ModelError
from compress.schema.workload import Workload
from compress.tasks import import_model
from compress.tasks.language_modeling.model import CausalLM
from tests.zoo.gguf import MODELS

ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3", "gemma3_text", "smollm3", "phi3")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_checkpoint_is_what_stock_transformers_loads(name, language_published, language_checkpoints):
    model = CausalLM.open(language_checkpoints[name])
    stock = transformers.AutoModelForCausalLM.from_pretrained(language_published[name]).eval()
    again = transformers.AutoModelForCausalLM.from_pretrained(language_checkpoints[name]).eval()
    ids = torch.tensor([model.tokenize("The old river runs slowly under the city.")])
    with torch.no_grad():
        expected = stock(ids).logits
        assert torch.equal(model.run({"input_ids": ids}), expected)
        assert torch.equal(again(ids).logits, expected)
    assert model.parameters() == sum(p.numel() for p in stock.parameters())


def test_products_and_widths_are_counted(language_checkpoints):
    model = CausalLM.open(language_checkpoints["llama"])
    vocabulary = model.config.vocab_size
    attention = 32 * 64 + 2 * 32 * 32 + 64 * 32  # query, key and value, output
    assert model.macs() == 2 * (attention + 3 * 32 * 64) + 32 * vocabulary
    assert model.widths() == {"ffn": (64, 64), "kv_heads": (2, 2), "vocabulary": (vocabulary,)}


def test_feeds_have_a_cache(language_checkpoints):
    model = CausalLM.open(language_checkpoints["qwen3"])
    feeds = model.processor.workload(["the river runs"], Workload(2, 5, 3))
    assert set(feeds) == set(model.input_names)
    assert feeds["input_ids"].shape == (2, 5)
    assert feeds["attention_mask"].shape == (2, 8)
    assert feeds["position_ids"].tolist() == [[3, 4, 5, 6, 7]] * 2
    assert feeds["past_key_values.1.value"].shape == (2, 2, 3, 16)


def test_windows_are_the_text_in_a_row(language_checkpoints, language_texts):
    model = CausalLM.open(language_checkpoints["llama"])
    windows = model.windows(language_texts[:10], 50)
    assert "\n".join(language_texts[:10]).startswith(model.tokenizer.decode(windows.flatten()))
    with pytest.raises(DataError, match="too little text"):
        model.windows(["one"], 50)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "bloom"}, "unknown architecture"),
        ({"num_key_value_heads": 3}, "do not divide"),
        ({"intermediate_size": 65}, "do not fit"),
        ({"num_hidden_layers": "2"}, "makes no model(.*\n)+.*num_hidden_layers.* expected int"),
        ({"max_position_embeddings": None}, "makes no model(.*\n)+.*max_position_embeddings"),
        ({"layer_types": ["full_attention"]}, "makes no model(.*\n)+.*layer_types"),
        ({"hidden_size": 31}, "makes no model(.*\n)+.*31"),
        ({"num_attention_heads": "4"}, "do not divide"),
        ({"_attn_implementation": "flash_attention_2"}, "do not fit(.*\n)+.*[Ff]lash"),
        ({"num_hidden_layers": 3}, "missing"),
        ({"num_hidden_layers": 1}, "unexpected"),
    ],
)
def test_a_config_that_disagrees_is_refused(change, said, language_published, copy_of, tmp_path):
    folder = copy_of(language_published["llama"])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ModelError, match=said):
        import_model(CausalLMModel(source=f"path:{folder}"), made(tmp_path))


def made(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_a_truncated_shard_is_refused(language_published, copy_of, tmp_path):
    folder = copy_of(language_published["llama"])
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(ModelError, match="damaged"):
        import_model(CausalLMModel(source=f"path:{folder}"), made(tmp_path))


def test_a_missing_shard_is_refused(language_published, copy_of, tmp_path):
    folder = copy_of(language_published["llama"])
    tensors = load_file(folder / "model.safetensors")
    half = dict(list(tensors.items())[: len(tensors) // 2])
    save_file(half, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="missing"):
        import_model(CausalLMModel(source=f"path:{folder}"), made(tmp_path))


def test_a_tokenizer_of_another_model_is_refused(language_published, copy_of, tmp_path):
    folder = copy_of(language_published["llama"])
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["zzz"] = 5000
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ModelError, match="tokens that the model does not know"):
        import_model(CausalLMModel(source=f"path:{folder}"), made(tmp_path))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="tokenizer"):
        import_model(CausalLMModel(source=f"path:{folder}"), tmp_path / "out")


def test_settings_of_older_releases_are_read(language_checkpoints, copy_of, tmp_path):
    folder = copy_of(language_checkpoints["llama"])
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": None}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    model = CausalLM.open(folder)
    text = "The old river runs slowly under the city."
    assert model.tokenizer(text, add_special_tokens=False)["input_ids"] == model.tokenize(text)
    model.save(made(tmp_path), model.facts)
    assert "add_prefix_space" not in json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert again(text, add_special_tokens=False)["input_ids"] == model.tokenize(text)


# ---------------------------------------------------------------- GGUF


@pytest.fixture
def packed(tmp_path):
    return MODELS["llama"](tmp_path)


def test_a_gguf_becomes_a_checkpoint_that_stock_transformers_reads(packed, tmp_path):
    import_model(CausalLMModel(source=f"path:{packed}"), made(tmp_path))
    model = CausalLM.open(tmp_path / "out")
    stock = transformers.AutoTokenizer.from_pretrained(model.folder)
    described = json.loads((model.folder / "tokenizer.json").read_text())
    assert described["decoder"]["type"] == "ByteLevel"
    assert len(described["model"]["vocab"]) == len(stock)  # no token that the file lacks
    assert not described["model"]["byte_fallback"]
    written = json.loads((model.folder / "tokenizer_config.json").read_text())
    assert not [key for key, value in written.items() if value is None and not key.endswith("_token")]
    assert (stock.bos_token_id, stock.eos_token_id, stock.model_max_length) == (1, 0, 256)
    text = "The old river runs slowly under the city."
    assert stock(text)["input_ids"] == model.tokenize(text)  # no token in front that the file forbids
    [checked] = json.loads((model.folder / "stage.json").read_text())["gates"]
    assert checked["name"] == "read as gguf with numpy reads it"


def test_a_damaged_gguf_is_refused(packed, tmp_path):
    whole = packed.read_bytes()
    packed.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"damaged|cut short"):
        import_model(CausalLMModel(source=f"path:{packed}"), made(tmp_path))
    packed.write_bytes(b"PK" + whole[2:])
    with pytest.raises(ModelError, match="no GGUF"):
        import_model(CausalLMModel(source=f"path:{packed}"), tmp_path / "out")


def test_a_gguf_of_unknown_blocks_is_refused(packed, tmp_path):
    whole = bytearray(packed.read_bytes())
    name = b"blk.0.ffn_down.weight"
    at = whole.index(name) + len(name) + 4 + 2 * 8  # dimensions, then the type
    whole[at : at + 4] = (250).to_bytes(4, "little")
    packed.write_bytes(whole)
    with pytest.raises(ModelError, match="unknown type"):
        import_model(CausalLMModel(source=f"path:{packed}"), made(tmp_path))


def test_two_ggufs_in_a_folder_have_to_be_chosen_from(packed, tmp_path):
    (packed.parent / "other.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="2 GGUF files"):
        import_model(CausalLMModel(source=f"path:{packed.parent}"), made(tmp_path))
