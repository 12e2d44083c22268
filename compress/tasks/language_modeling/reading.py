"""What a language model is asked before anything is done to it: see compress.tasks.reading."""

from collections.abc import Collection, Mapping
from typing import Any

import jinja2
import numpy as np
import torch

from compress.models.limits import contexts, windows
from compress.tasks.language_modeling.model import CausalLM
from compress.tasks.reading import TEXTS, Arrays

_WINDOW = 8192  # tokens of the largest window that is crossed: attention alone would take minutes behind it
_NO_LIMIT = 2**31  # tokens
_MARKS = 50  # some have thousands
_BEHIND = 16  # tokens behind a limit, or on both sides of it


class LanguageReading:
    """Texts for the tokenizer, and tokens at positions that cross every limit of config.json."""

    def __init__(self, model: CausalLM, ends: Collection[int]) -> None:
        self.model, self.ends = model, ends  # tokens that end what is generated

    def probes(self) -> dict[str, Any]:
        text = self.model.tokenize(" ".join(TEXTS.values()))
        marks = sorted(self.model.tokenizer.get_added_vocab())[:_MARKS]
        last = int(self.model.config.max_position_embeddings)
        marked = self.model.processor.tokenizer.encode([TEXTS["a sentence"]], last)[0]
        spans = {"a text": (0, min(128, last))}
        config = self.model.config.to_dict()
        for window in windows(config):
            if window <= _WINDOW:
                spans[f"behind a window of {window}"] = (0, min(window + _BEHIND, last))
        # Of the rotation, which goes by the position; Phi-3 names one far behind its last.
        for context in (each for each in contexts(config) if each <= last):
            spans[f"around position {context}"] = (max(0, context - _BEHIND), min(context + _BEHIND, last))
        return {
            "texts": {**TEXTS, "its own marks": "".join(f"a {mark} b{mark}" for mark in marks)},
            "with_marks": {"a text with its marks": TEXTS["spaces"], "an empty text with its marks": ""},
            "chats": {"a chat": TEXTS["spaces"]},
            "ids": {"a text with its marks": marked}
            | {name: [text[i % len(text)] for i in range(*span)] for name, span in spans.items()},
            "positions": {"a text with its marks": list(range(len(marked)))}
            | {name: list(range(*span)) for name, span in spans.items()},
        }

    def answers(self, probes: Mapping[str, Any]) -> Arrays:
        found: Arrays = {}
        tokenizer = self.model.processor.tokenizer
        for name, text in probes["texts"].items():
            found[f"tokens/{name}"] = np.array(tokenizer.plain(text), np.int64)
        for name, text in probes["with_marks"].items():
            found[f"tokens/{name}"] = np.array(tokenizer.encode([text], _NO_LIMIT)[0], np.int64)
        if self.model.tokenizer.chat_template:
            for name, text in probes["chats"].items():
                found[f"tokens/{name}"] = np.array(tokenizer.plain(self._chat(text)), np.int64)
        for name, ids in probes["ids"].items():
            with torch.no_grad():
                told: Any = self.model.module(
                    input_ids=torch.tensor([ids]),
                    position_ids=torch.tensor([probes["positions"][name]]),
                    use_cache=False,
                    logits_to_keep=8,
                )
            found[f"outputs/{name}"] = told.logits[0].numpy()
        found["ends/of what is generated"] = np.array(sorted(self.ends), np.int64)
        return found

    def _chat(self, text: str) -> str:
        """As `compress generate --chat` has it; empty where the template refuses a user who speaks first."""
        said = [{"role": "user", "content": text}]
        try:
            return str(
                self.model.tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
            )
        except jinja2.TemplateError:
            return ""
