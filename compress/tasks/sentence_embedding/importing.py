"""A published sentence encoder to a checkpoint of ours."""

from pathlib import Path
from typing import Any

import transformers

from compress.config.model import EncoderModel
from compress.models.checkpoint import fetch_published
from compress.models.loading import check_builds, with_all_heads
from compress.sources import peek
from compress.tasks.reading import check_reading
from compress.tasks.sentence_embedding import stock
from compress.tasks.sentence_embedding.model import Encoder
from compress.tasks.sentence_embedding.settings import read_settings
from compress.tasks.text.reading import TextReading


def import_encoder(config: EncoderModel, out: Path) -> None:
    """Turn a published folder into a checkpoint of ours; pickled weights are refused."""
    if (modules := peek(config.source, "modules.json", "*config*.json")) is not None:
        read_settings(modules.parent)  # what is refused there is not worth its weights
    folder, facts = fetch_published(config, _check)
    Encoder.load(folder, facts).save(out, facts)
    with with_all_heads(folder) as whole:
        check_reading(TextReading(Encoder.open(out)), stock, whole, out)


def _check(described: dict[str, Any]) -> None:
    Encoder.check_described(described)
    check_builds(transformers.AutoModel, described)
