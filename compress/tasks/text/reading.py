"""What an encoder of text is asked before anything is done to it: see compress.tasks.reading."""

from collections.abc import Mapping
from typing import Any

import torch

from compress.models.limits import windows
from compress.tasks.reading import TEXTS, Arrays
from compress.tasks.text.model import TextModel

_LONGEST = 8192  # tokens


class TextReading:
    """Texts in one batch: as they come, and one behind every limit, of attention and of what is read."""

    pairs = False  # whether two texts are read together, too

    def __init__(self, model: TextModel) -> None:
        self.model = model

    def probes(self) -> dict[str, Any]:
        words = " ".join(TEXTS.values()).split()
        longest = self.model.processor.max_length
        lengths = sorted({*windows(self.model.config.to_dict()), longest})
        beyond = [length + 16 for length in lengths if length <= _LONGEST]
        of_words = {f"{n} words": " ".join(words[i % len(words)] for i in range(n)) for n in beyond}
        without_text = len(self.model.processor.encode([""])[0])  # tokens: the marks around it
        nothing = {"nothing": ""} if without_text else {}
        return {"texts": {**TEXTS, **nothing, **of_words}}

    def answers(self, probes: Mapping[str, Any]) -> Arrays:
        found: Arrays = {}
        texts = probes["texts"]
        for name, text in texts.items():
            found[f"tokens/{name}"] = self.model.processor.tokenize([text])["input_ids"][0]
        with torch.no_grad():
            outputs = self.model.run(self.model.tokenize(list(texts.values()))).numpy()
        return {**found, **{f"outputs/{n}": e for n, e in zip(texts, outputs, strict=True)}}
