"""What differs between kinds of model, one file each.

A checkpoint is a folder in Hugging Face layout plus `compress.json`, which names its family, so that
every stage can open what an earlier one left without being told.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from compress import sources
from compress.config import EncoderModel, ModelConfig
from compress.errors import ModelError, did_you_mean
from compress.families.checkpoint import Facts, read_facts
from compress.families.summary import Summary, read_check_inputs, read_summary
from compress.registry import implementation

if TYPE_CHECKING:  # torch and transformers take seconds: not before a model has to be opened
    from compress.families.encoder import Encoder

__all__ = [
    "Facts",
    "Summary",
    "identity",
    "import_model",
    "load",
    "read_check_inputs",
    "read_facts",
    "read_summary",
]


def import_model(config: ModelConfig, out: Path) -> None:
    """Fetch the model that `config` names and write it as a checkpoint; raises ModelError, SourceError."""
    from compress.families import encoder  # noqa: F401  registers itself

    implementation(config)(config, out)


def identity(config: ModelConfig) -> str:
    """Digest of what `import_model` would fetch; nothing is downloaded for a pinned source."""
    assert isinstance(config, EncoderModel)
    return sources.identity(config.source, config.sha256)


def load(checkpoint: Path, attention: str = "sdpa") -> Encoder:
    """Open a checkpoint written by a stage; raises ModelError when it is not intact."""
    from compress.families.encoder import FAMILY, Encoder

    families = {FAMILY: Encoder}
    facts = read_facts(checkpoint)
    if facts.family not in families:
        raise ModelError(
            f"{checkpoint} is of an unknown family",
            found=facts.family,
            allowed=did_you_mean(facts.family, families),
        )
    return families[facts.family].load(checkpoint, facts, attention)
