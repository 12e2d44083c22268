"""What differs between kinds of model, one file each.

A checkpoint is a folder in Hugging Face layout plus `compress.json`, which names its family, so that
every stage can open what an earlier one left without being told.
"""

from pathlib import Path

from compress import sources
from compress.config import EncoderModel, ModelConfig
from compress.errors import ModelError, did_you_mean
from compress.families import encoder as _encoder
from compress.families.checkpoint import Facts, read_facts
from compress.families.encoder import Encoder
from compress.registry import implementation

__all__ = ["Encoder", "Facts", "identity", "import_model", "load", "read_facts"]

_FAMILIES = {_encoder.FAMILY: Encoder}


def import_model(config: ModelConfig, out: Path) -> None:
    """Fetch the model that `config` names and write it as a checkpoint; raises ModelError, SourceError."""
    implementation(config)(config, out)


def identity(config: ModelConfig) -> str:
    """Digest of what `import_model` would fetch; nothing is downloaded for a pinned source."""
    assert isinstance(config, EncoderModel)
    return sources.identity(config.source, config.sha256)


def load(checkpoint: Path, attention: str = "sdpa") -> Encoder:
    """Open a checkpoint written by a stage; raises ModelError when it is not intact."""
    facts = read_facts(checkpoint)
    if facts.family not in _FAMILIES:
        raise ModelError(
            f"{checkpoint} is of an unknown family",
            found=facts.family,
            allowed=did_you_mean(facts.family, _FAMILIES),
        )
    return _FAMILIES[facts.family].load(checkpoint, facts, attention)
