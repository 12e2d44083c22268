"""What an encoder with a head is asked before anything is done to it, beside plain texts: pairs of them."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from compress.data.class_names import classes_of
from compress.tasks.reading import Arrays
from compress.tasks.text.heads import HeadedModel
from compress.tasks.text.reading import TextReading


class HeadReading(TextReading):
    """Texts, then pairs, each in one batch; outputs are those of transformers, of real tokens alone."""

    model: HeadedModel

    def probes(self) -> dict[str, Any]:
        texts = super().probes()["texts"]
        names = list(texts)
        pairs = {f"{a}, {b}": [texts[a], texts[b]] for a, b in pairwise(names)}
        longest = max(texts, key=lambda name: len(texts[name]))
        pairs["two long ones"] = [texts[longest], texts[longest]]
        return {
            "auto": self.model.auto.__name__,
            "outputs": self.model.output_names,
            "per_token": self.model.per_token,
            "cut": "longest_first",
            "texts": {**texts, **pairs},
        }

    def answers(self, probes: Mapping[str, Any]) -> Arrays:
        model, texts = self.model, probes["texts"]
        processor = model.processor
        read = [text if isinstance(text, str) else tuple(text) for text in texts.values()]
        rows = processor.cut(read, processor.max_length)
        inputs = {name: torch.from_numpy(array) for name, array in processor.feeds(rows).items()}
        with torch.no_grad():
            given = torch.stack(list(model.outputs(inputs).values()), 1).numpy()
        real = inputs["attention_mask"].numpy().astype(bool)
        found: Arrays = {"classes/names": np.array(classes_of(model.folder))}
        for number, (name, row) in enumerate(zip(texts, rows, strict=True)):
            found[f"tokens/{name}"] = np.array(row.ids)
            found[f"outputs/{name}"] = given[number][:, real[number]] if model.per_token else given[number]
        return found
