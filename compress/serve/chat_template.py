"""Messages to the one text that a model reads, by its chat template; transformers runs it in a sandbox.

The template and its marks are read here, not by a tokenizer of transformers, which takes torch along: seconds
and 200 MB.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compress.errors import ConfigError
from compress.models.tokenizer import chat_template, tokenizer_settings

_MARKS = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))


class ChatTemplate:
    def __init__(self, template: str, marks: Mapping[str, str]) -> None:
        """`marks`: by their names in the template, such as eos_token."""
        self.template, self.marks = template, dict(marks)

    def text(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """All messages, up to where the model's answer begins; raises ConfigError where the template refuses
        them."""
        from jinja2 import TemplateError
        from transformers.utils.chat_template_utils import render_jinja_template

        chat = [dict(each) for each in messages]
        try:
            [text], _ = render_jinja_template(
                [chat], chat_template=self.template, add_generation_prompt=True, **self.marks
            )
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise ConfigError("the model's chat template refuses these messages", found=error) from None
        return str(text)


def read_chat_template(folder: Path) -> ChatTemplate | None:
    """That of a tokenizer's folder; None where there is none."""
    template, settings = chat_template(folder), tokenizer_settings(folder)
    if template is None:
        return None
    named = {name: settings[name] for name in _MARKS if name in settings}
    marks = {name: each["content"] if isinstance(each, dict) else str(each) for name, each in named.items()}
    return ChatTemplate(template, marks)
