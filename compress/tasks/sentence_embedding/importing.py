"""A published sentence encoder to a checkpoint of ours."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers

from compress.config.model import EncoderModel
from compress.errors import ModelError
from compress.models.checkpoint import fetch_published, read_json
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
    published, facts = fetch_published(config, _check)
    with _as_asked(published, config) as folder:
        Encoder.load(folder, facts).save(out, facts)
        with with_all_heads(folder) as whole:
            check_reading(TextReading(Encoder.open(out)), stock, whole, out)


@contextmanager
def _as_asked(published: Path, config: EncoderModel) -> Iterator[Path]:
    """The folder, or links to its files and the settings that `config` changes, as long as the context lasts.

    Raises ModelError for a folder without such settings.
    """
    asked = {"default_prompt_name": config.prompt, "truncate_dim": config.dimensions}
    changes = {name: value for name, value in asked.items() if value is not None}
    if not changes:
        yield published
        return
    if not (published / "modules.json").is_file():
        raise ModelError(
            "the encoder is a plain model of transformers, which has no prompts and gives all it has",
            found=f"no modules.json in {published}",
            allowed="model.prompt and model.dimensions for folders of sentence-transformers",
        )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / published.name
        shutil.copytree(published.resolve(), folder, copy_function=os.symlink)
        settings = folder / "config_sentence_transformers.json"
        described = read_json(settings) if settings.is_file() else {}
        settings.unlink(missing_ok=True)
        settings.write_text(json.dumps({**described, **changes}, indent=2), "utf-8")
        yield folder


def _check(described: dict[str, Any]) -> None:
    Encoder.check_described(described)
    check_builds(transformers.AutoModel, described)
