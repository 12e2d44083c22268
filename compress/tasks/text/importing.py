"""A published encoder with a head to a checkpoint of ours."""

from pathlib import Path
from types import ModuleType
from typing import Any

from compress.config.model import ModelConfig
from compress.models.checkpoint import fetch_published
from compress.models.loading import check_builds, with_all_heads
from compress.tasks.reading import Reading, check_reading
from compress.tasks.text import stock
from compress.tasks.text.head_reading import HeadReading
from compress.tasks.text.heads import HeadedModel


def import_headed(
    config: ModelConfig,
    out: Path,
    model: type[HeadedModel],
    reading: type[Any] = HeadReading,
    told_by: ModuleType = stock,
) -> None:
    """Turn a published folder into a checkpoint of `model`; pickled weights are refused.

    It is held against what the script `told_by` says of what `reading` asks.
    """

    def check(described: dict[str, Any]) -> None:
        model.check_described(described)
        check_builds(model.auto, described)

    folder, facts = fetch_published(config, check)
    model.load(folder, facts).save(out, facts)
    read: Reading = reading(model.open(out))
    with with_all_heads(folder) as whole:
        check_reading(read, told_by, whole, out)
