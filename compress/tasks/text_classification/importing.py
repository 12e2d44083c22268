"""A published classifier of texts to a checkpoint of ours."""

from pathlib import Path

from compress.tasks.text.importing import import_headed
from compress.tasks.text_classification.model import TextClassifier
from compress.tasks.text_classification.options import TextClassifierModel


def import_text_classifier(config: TextClassifierModel, out: Path) -> None:
    """Turn a published folder into a checkpoint of ours; pickled weights are refused."""
    import_headed(config, out, TextClassifier)
