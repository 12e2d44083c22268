"""What differs between kinds of model, one file each.

A checkpoint is a folder in Hugging Face layout plus `compress.json`, which names its family, so that
every stage can open what an earlier one left without being told.
"""

from pathlib import Path

from compress.config import ModelConfig
from compress.families import encoder as _encoder
from compress.families.checkpoint import Facts, read_facts
from compress.families.encoder import Encoder
from compress.registry import implementation

__all__ = ["Encoder", "Facts", "import_model", "load", "read_facts"]

_FAMILIES = {_encoder.FAMILY: Encoder}


def import_model(config: ModelConfig, out: Path) -> None:
    """Fetch the model that `config` names and write it as a checkpoint; raises ModelError, SourceError."""
    implementation(config)(config, out)


def load(checkpoint: Path) -> Encoder:
    """Open a checkpoint written by a stage; raises ModelError when it is not intact."""
    facts = read_facts(checkpoint)
    return _FAMILIES[facts.family].load(checkpoint, facts)
