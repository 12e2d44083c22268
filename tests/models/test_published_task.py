"""The task of a published model, as optimum infers it from transformers' own classes, in our errors."""

import json

import pytest

from compress import tasks
from compress.config.model import CausalLMModel, EncoderModel
from compress.errors import ModelError
from compress.models.published_task import other_task


@pytest.mark.parametrize(
    ("name", "what", "advice"),
    [
        ("LlamaForCausalLM", "a sentence encoder", "its task is text-generation: try model=causal_lm"),
        ("Olmo3ForCausalLM", "a sentence encoder", "its task is text-generation: try model=causal_lm"),
        ("LlamaForCausalLM", "a language model", None),
        ("ModernBertForMaskedLM", "a language model", "its task is fill-mask: try model=encoder"),
        ("ViTForImageClassification", "a language model", "classification: try model=image_classifier"),
        ("BertForSequenceClassification", "a language model", ": try model=reranker or text_classifier"),
        ("BertForSequenceClassification", "a reranker", None),
        ("BertForMultipleChoice", "a language model", "multiple-choice, which no option is for"),
        ("NoSuchModel", "a language model", None),
    ],
)
def test_the_option_is_named_that_fits(name, what, advice):
    found = other_task({"architectures": [name]}, what)
    assert found is None if advice is None else found.endswith(advice)


def test_a_config_without_classes_gets_no_advice():
    assert [other_task(config, "a language model") for config in ({}, {"architectures": None})] == [None] * 2


@pytest.mark.parametrize("option", [EncoderModel, CausalLMModel])
def test_a_source_of_another_task_says_which_option_takes_it(
    option, image_checkpoints, language_checkpoints, tmp_path
):
    of_other = {
        EncoderModel: (language_checkpoints["llama"], "causal_lm"),
        CausalLMModel: (image_checkpoints["vit"], "image_classifier"),
    }
    folder, fitting = of_other[option]
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"]
    with pytest.raises(ModelError, match=rf"next: .*its task is .*: try model={fitting}"):
        tasks.import_model(option(source=f"path:{folder}"), tmp_path / "out")
