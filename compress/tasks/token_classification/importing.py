"""A published tagger to a checkpoint of ours."""

from pathlib import Path

from compress.tasks.text.importing import import_headed
from compress.tasks.token_classification.model import TokenClassifier
from compress.tasks.token_classification.options import TokenClassifierModel


def import_token_classifier(config: TokenClassifierModel, out: Path) -> None:
    """Turn a published folder into a checkpoint of ours; pickled weights are refused."""
    import_headed(config, out, TokenClassifier)
