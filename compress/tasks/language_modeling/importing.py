"""A published language model to a checkpoint of ours."""

import tempfile
from pathlib import Path
from typing import Any

import transformers

from compress.config.model import CausalLMModel
from compress.models.architectures import LANGUAGE_MODELS
from compress.models.checkpoint import fetch_published
from compress.models.gguf import convert, gguf_of
from compress.models.loading import check_builds
from compress.tasks.language_modeling import stock, stock_gguf
from compress.tasks.language_modeling.generation import end_tokens
from compress.tasks.language_modeling.model import CausalLM, check_described
from compress.tasks.language_modeling.reading import LanguageReading
from compress.tasks.reading import check_reading


def import_causal_lm(config: CausalLMModel, out: Path) -> None:
    """Turn a published folder, or a GGUF file, into a checkpoint of ours; pickled weights are refused."""
    published, facts = fetch_published(config, _check)
    if (packed := gguf_of(published)) is not None:
        published = packed
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        folder = Path(scratch) if packed else published
        if packed:
            convert(packed, folder, LANGUAGE_MODELS)
        end_tokens(folder)  # what is wrong there would show where text is written, hours later
        CausalLM.load(folder, facts, stored=True).save(out, facts)
    library = stock_gguf if packed else stock
    check_reading(LanguageReading(CausalLM.open_stored(out), end_tokens(out)), library, published, out)


def _check(described: dict[str, Any]) -> None:
    check_described(described)
    check_builds(transformers.AutoModelForCausalLM, described)
