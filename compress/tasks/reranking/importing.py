"""A published cross-encoder to a checkpoint of ours."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from compress.sources import peek
from compress.tasks.reading import Arrays
from compress.tasks.reranking import stock
from compress.tasks.reranking.model import Reranker
from compress.tasks.reranking.options import RerankerModel
from compress.tasks.reranking.settings import read_settings
from compress.tasks.text.head_reading import HeadReading
from compress.tasks.text.importing import import_headed


class PairReading(HeadReading):
    """Pairs alone, and scores: logits behind the activation that the model is published with."""

    def probes(self) -> dict[str, Any]:
        texts = super().probes()["texts"]
        return {"texts": {name: text for name, text in texts.items() if not isinstance(text, str)}}

    def answers(self, probes: Mapping[str, Any]) -> Arrays:
        found = super().answers(probes)
        activation = read_settings(self.model.folder).activation
        for name, logits in found.items():
            if name.startswith("outputs/"):
                found[name] = logits[0] if activation == "none" else 1 / (1 + np.exp(-logits[0]))
        return {name: array for name, array in found.items() if not name.startswith("classes/")}


def import_reranker(config: RerankerModel, out: Path) -> None:
    """Turn a published folder into a checkpoint of ours; pickled weights are refused."""
    described = peek(config.source, "modules.json", "*config*.json") or peek(config.source, "config.json")
    if described is not None:
        read_settings(described.parent)  # what is refused there is not worth its weights
    import_headed(config, out, Reranker, PairReading, stock)
