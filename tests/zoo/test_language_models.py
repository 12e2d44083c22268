"""Language models are read as stock transformers reads them, and so is the tokenizer.json that ships."""

import jinja2
import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer

from compress.config.model import CausalLMModel
from compress.errors import ModelError
from compress.tasks import import_model
from compress.tasks.language_modeling.model import CausalLM
from compress.tasks.reading import TEXTS
from tests.zoo.gguf import TRAINED
from tests.zoo.language_models import CASES, REFUSED
from tests.zoo.sample import every_second


def imported(make, folder):
    make(folder / "published")
    (folder / "out").mkdir()
    import_model(CausalLMModel(source=f"path:{folder / 'published'}"), folder / "out")
    return CausalLM.open(folder / "out")


@pytest.mark.parametrize("name", every_second(CASES))
def test_a_model_is_read_as_stock_transformers_reads_it(name, tmp_path):
    model = imported(CASES[name], tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "published")
    shipped = Tokenizer.from_file(str(model.folder / "tokenizer.json"))
    for text in [*TEXTS.values(), TRAINED[-1], "", "a<|end|> b <unk> c", "▁a"]:
        expected = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert model.tokenize(text) == expected
        assert shipped.encode(text, add_special_tokens=False).ids == expected
        assert shipped.encode(text).ids == tokenizer(text)["input_ids"]
        assert model.processor.tokenizer.decode(expected) == tokenizer.decode(
            expected, skip_special_tokens=True
        )
    if tokenizer.chat_template:
        said = [{"role": "user", "content": "a  cat"}]
        try:
            expected = tokenizer.apply_chat_template(said, add_generation_prompt=True)["input_ids"]
        except jinja2.TemplateError:
            return
        text = model.tokenizer.apply_chat_template(said, add_generation_prompt=True, tokenize=False)
        assert shipped.encode(text, add_special_tokens=False).ids == expected
    stock = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "published", dtype=torch.float32)
    ids = torch.tensor([tokenizer(TEXTS["spaces"])["input_ids"]])
    with torch.no_grad():
        assert np.allclose(model.run({"input_ids": ids}), stock.eval()(ids).logits, atol=1e-5)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_by_name(name, tmp_path):
    make, said = REFUSED[name]
    with pytest.raises(ModelError, match=said):
        imported(make, tmp_path)
