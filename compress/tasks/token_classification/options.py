"""What a run is asked for, of a tagger."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

from compress.config.data import DataConfig
from compress.config.evaluate import EvaluateConfig
from compress.config.model import HeadedEncoder
from compress.registry import option


@option("model", "token_classifier", "compress.tasks.token_classification.importing:import_token_classifier")
@dataclass(kw_only=True)
class TokenClassifierModel(HeadedEncoder):
    """A tagger: a label for every word, such as those of entities in BIO or BIOES."""

    task: ClassVar[str] = "token_classification"
    what: ClassVar[str] = "a tagger"
    published_as: ClassVar[tuple[str, ...]] = ("token-classification",)


@option("evaluate", "token_classification", "compress.tasks.token_classification.metrics:compare")
@dataclass(kw_only=True)
class TokenClassification(EvaluateConfig):
    """Accuracy of words, and agreement with the dense model."""

    primary: str | None = None  # null: accuracy, without labels agreement

    def metrics(self, data: DataConfig) -> Collection[str]:
        of_labels = ("accuracy",) if data.labelled else ()
        return (*of_labels, "agreement", "kl")
