"""Messages to text, beside the tokenizer of transformers."""

import json

import pytest
import transformers
from tokenizers import Tokenizer, models

from compress.errors import ConfigError
from compress.serve.chat_template import read_chat_template

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'tool' and not m.tool_call_id %}"
    "{{ raise_exception('whose?') }}{% endif %}<{{ m['role'] }}>{{ m['content'] | trim }}{{ eos_token }}\n"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
MESSAGES = [{"role": "system", "content": " be brief "}, {"role": "user", "content": "<b> & ü"}]


def save(folder, template):
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")),
        bos_token="<s>",
        eos_token="</s>",
        chat_template=template,
    )
    made.save_pretrained(folder)
    return made


def test_what_transformers_makes_of_it(tmp_path):
    stock = save(tmp_path, TEMPLATE)
    expected = stock.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
    assert "<s><system>be brief</s>" in expected
    assert read_chat_template(tmp_path).text(MESSAGES) == expected
    assert expected.endswith("<assistant>")


def test_as_earlier_releases_wrote_it(tmp_path):
    expected = save(tmp_path, TEMPLATE).apply_chat_template(
        MESSAGES, tokenize=False, add_generation_prompt=True
    )
    (tmp_path / "chat_template.jinja").unlink()
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    mark = {"__type": "AddedToken", "content": "<s>", "special": True}
    several = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": TEMPLATE}]
    for template in (TEMPLATE, several):
        changed = {**config, "bos_token": mark, "chat_template": template}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(changed))
        assert read_chat_template(tmp_path).text(MESSAGES) == expected
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": several[:1]}))
    assert read_chat_template(tmp_path) is None


def test_none(tmp_path):
    save(tmp_path, None)
    assert read_chat_template(tmp_path) is None


@pytest.mark.parametrize(
    ("template", "messages", "said"),
    [
        (TEMPLATE, [{"role": "tool", "content": "5"}], "whose"),
        ("{{ messages[5].content }}", MESSAGES, "no element 5"),
        ("{{ messages[0].content + 5 }}", MESSAGES, "str"),
        ("{% for", MESSAGES, "expected"),
        ("{{ ().__class__.__base__.__subclasses__() }}", MESSAGES, "unsafe"),
    ],
)
def test_messages_and_templates_that_do_not_go_together(tmp_path, template, messages, said):
    save(tmp_path, template)
    with pytest.raises(ConfigError, match=f"refuses these messages\n.*{said}"):
        read_chat_template(tmp_path).text(messages)
