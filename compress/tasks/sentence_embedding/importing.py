"""A published sentence encoder to a checkpoint of ours."""

from functools import partial
from pathlib import Path

from compress.config.model import EncoderModel
from compress.models.checkpoint import fetch_published
from compress.models.kind import check_kind
from compress.models.layers import TEXT_ENCODERS
from compress.tasks.reading import check_reading
from compress.tasks.sentence_embedding import stock
from compress.tasks.sentence_embedding.model import KIND, Encoder
from compress.tasks.sentence_embedding.reading import EncoderReading


def import_encoder(config: EncoderModel, out: Path) -> None:
    """Turn a published folder into a checkpoint of ours; pickled weights are refused."""
    folder, facts = fetch_published(config, partial(check_kind, known=TEXT_ENCODERS, what=KIND))
    Encoder.load(folder, facts).save(out, facts)
    check_reading(EncoderReading(Encoder.open(out)), stock, folder, out)
