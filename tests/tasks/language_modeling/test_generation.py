"""What ends a text is what ends it in stock transformers, or is refused."""

import json

import pytest
import transformers

from compress.errors import ModelError
from compress.tasks.language_modeling.generation import end_tokens

CONFIG = {"model_type": "llama", "eos_token_id": 3}


def written(folder, **files):
    for name, content in files.items():
        (folder / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


@pytest.mark.parametrize(
    "named", [{"eos_token_id": 5}, {"eos_token_id": [5, 6]}, {"eos_token_id": 0}, {"eos_token_id": None}, {}]
)
def test_generation_config_goes_before_config(named, tmp_path):
    folder = written(tmp_path, config=CONFIG, generation_config=named)
    stock = transformers.GenerationConfig.from_pretrained(folder).eos_token_id
    assert end_tokens(folder) == ({*(stock if isinstance(stock, list) else [stock])} - {None})


@pytest.mark.parametrize("found", [5, [5, 6], None])
def test_config_tells_where_that_is_silent(found, tmp_path):
    folder = written(tmp_path, config={**CONFIG, "eos_token_id": found})
    config = transformers.AutoConfig.from_pretrained(folder)
    stock = transformers.GenerationConfig.from_model_config(config).eos_token_id
    assert end_tokens(folder) == ({*(stock if isinstance(stock, list) else [stock])} - {None})


@pytest.mark.parametrize(
    ("content", "said"), [("{", "is not JSON"), ({"eos_token_id": "</s>"}, "which tokens end a text")]
)
def test_what_names_no_tokens_is_refused(content, said, tmp_path):
    with pytest.raises(ModelError, match=said):
        end_tokens(written(tmp_path, config=CONFIG, generation_config=content))
