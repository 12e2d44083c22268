"""What config.json tells of a model's kind, against what stock transformers writes for each type."""

import json
import re
from pathlib import Path

import pytest
import torch
import transformers

from compress import tasks
from compress.config.model import CausalLMModel, EncoderModel, ImageClassifierModel
from compress.errors import ModelError
from compress.models.architectures import LANGUAGE_MODELS, TEXT_ENCODERS
from compress.models.kind import check_kind
from compress.tasks import import_model
from tests.conftest import LANGUAGE_SIZES, write_bpe

DOCUMENT = "docs/language_models.md"
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("known", [LANGUAGE_MODELS, TEXT_ENCODERS])
def test_every_type_of_the_table_passes(known):
    for model_type in known:
        config = transformers.AutoConfig.for_model(model_type).to_dict()
        check_kind(config, known, "a model")
        with pytest.raises(ModelError, match="unknown architecture of a model"):
            check_kind(config, set(known) - {model_type}, "a model")


@pytest.mark.parametrize(
    ("kind", "types"),
    [
        ("a mixture of experts", ["mixtral", "qwen3_moe", "gpt_oss", "deepseek_v3", "granitemoe", "olmoe"]),
        ("a hybrid", ["lfm2", "qwen3_5_text", "jamba", "falcon_h1", "mamba2", "recurrent_gemma"]),
        ("a multimodal", ["gemma3", "mistral3", "qwen3_5", "llava", "gemma4", "clip"]),
        ("an encoder with a decoder", ["t5", "bart", "whisper"]),
        ("a transformer whose layers are not alike", ["gemma4_text"]),
    ],
)
def test_other_kinds_are_refused_by_what_stock_transformers_writes(kind, types):
    for model_type in types:
        config = transformers.AutoConfig.for_model(model_type).to_dict()
        with pytest.raises(ModelError, match=rf"{model_type} is {kind}.*\n.* in config.json\n.*llama"):
            check_kind(config, LANGUAGE_MODELS, "a language model")


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"num_local_experts": 8}, "experts"),
        ({"num_experts": 4, "num_experts_per_tok": 1}, "experts"),
        ({"layer_types": ["full_attention", "conv"]}, "hybrid"),
        ({"mamba_d_state": 16}, "hybrid"),
        ({"vision_config": {"hidden_size": 8}}, "multimodal"),
        ({"num_kv_shared_layers": 2}, "not alike"),
        ({"layer_types": ["full_attention", "chunked_attention"]}, "attends in chunks"),
        ({"layer_types": ["full_attention", ["conv"]]}, "hybrid"),
        ({"position_embedding_type": "relative_key"}, "other positions"),
    ],
)
def test_a_known_type_with_their_keys_is_refused(change, kind):
    with pytest.raises(ModelError, match=f"llama is .*{kind}"):
        check_kind({"model_type": "llama", **change}, LANGUAGE_MODELS, "a language model")


@pytest.mark.parametrize(
    "change",
    [
        {"num_experts": 1},
        {"num_local_experts": 0},
        {"num_experts": None},
        {"vision_config": None},
        {"num_experts": 64, "is_moe": False},
        {"quantization_config": None},
        {"position_embedding_type": "absolute"},
    ],
)
def test_keys_that_are_not_set_refuse_nothing(change):
    check_kind({"model_type": "llama", **change}, LANGUAGE_MODELS, "a language model")


METHODS = ("bitsandbytes", "awq", "gptq", "compressed-tensors", "fp8", "quanto", "hqq", "torchao")


@pytest.mark.parametrize(
    ("given", "named"),
    [*(({"quant_method": method}, method) for method in METHODS), ("x", "unknown"), ({}, "unknown")],
)
def test_quantized_weights_are_refused_before_they_are_looked_for(given, named, tmp_path):
    for config, model_type in (
        (CausalLMModel, "llama"),
        (EncoderModel, "bert"),
        (ImageClassifierModel, "vit"),
    ):
        described = {"model_type": model_type, "quantization_config": given}
        (tmp_path / "config.json").write_text(json.dumps(described))
        with pytest.raises(ModelError, match=rf"quantized already\n.*{named}(.*\n)+  next: +take the model"):
            import_model(config(source=f"path:{tmp_path}"), tmp_path)


@pytest.mark.parametrize("change", [{"use_bidirectional_attention": True}, {"is_causal": False}])
def test_a_language_model_whose_tokens_see_those_after_them_is_refused(change, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3_text", **change}))
    with pytest.raises(ModelError, match=rf"does not write text(.*\n)+.*{next(iter(change))}"):
        import_model(CausalLMModel(source=f"path:{tmp_path}"), tmp_path)


@pytest.mark.parametrize("model_type", ["gpt2", "opt", "bloom", "gptj"])
def test_an_unknown_type_of_the_task_says_what_to_do(model_type):
    config = transformers.AutoConfig.for_model(model_type).to_dict()
    with pytest.raises(ModelError, match=r"unknown architecture(.*\n)+  next: +take a language model of one"):
        check_kind(config, LANGUAGE_MODELS, "a language model")


def test_llama_4_and_doge_are_told_by_what_they_are():
    said = {"llama4_text": "a mixture of experts", "doge": "unknown architecture"}
    for model_type, words in said.items():
        config = transformers.AutoConfig.for_model(model_type).to_dict()
        with pytest.raises(ModelError, match=words):
            check_kind(config, LANGUAGE_MODELS, "a language model")


@pytest.mark.parametrize(
    ("outer", "inner", "vision"),
    [("gemma3", "gemma3_text", "siglip_vision_model"), ("mistral3", "ministral3", "pixtral")],
)
def test_the_text_model_of_a_multimodal_one_is_saved_as_documented(
    outer, inner, vision, language_texts, tmp_path
):
    source, folder, out = (tmp_path / name for name in ("source", "folder", "out"))
    sizes = {**LANGUAGE_SIZES, "vocab_size": write_bpe(source, language_texts), "model_type": inner}
    seen = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    whole = transformers.AutoModelForImageTextToText.from_config(
        transformers.AutoConfig.for_model(
            outer,
            text_config=sizes | {"tie_word_embeddings": outer == "gemma3"},
            vision_config={**seen, "image_size": 28, "patch_size": 14, "model_type": vision},
        )
    ).eval()
    whole.save_pretrained(source)
    with pytest.raises(ModelError, match=rf"multimodal(.*\n)+  next: +save the {inner} .*{DOCUMENT}"):
        import_model(CausalLMModel(source=f"path:{source}"), tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / DOCUMENT).read_text(), re.DOTALL)
    (lines,) = [block for block in blocks if "ImageTextToText" in block]
    exec(lines, {"source": source, "folder": folder})
    out.mkdir()
    import_model(CausalLMModel(source=f"path:{folder}"), out)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        expected = whole(input_ids=ids).logits
        torch.testing.assert_close(tasks.load(out).run({"input_ids": ids}), expected)
