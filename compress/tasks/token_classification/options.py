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
    head: ClassVar[str] = "AutoModelForTokenClassification"
    examples: ClassVar[str] = "tagging"
    published_as: ClassVar[tuple[str, ...]] = ("token-classification",)


@option("evaluate", "token_classification", "compress.tasks.token_classification.metrics:compare")
@dataclass(kw_only=True)
class TokenClassification(EvaluateConfig):
    """F1 of whole entities, accuracy of words; and agreement with the dense model."""

    primary: str | None = (
        None  # null: entity_f1, where tags are of no entities accuracy, without any agreement
    )

    def metrics(self, data: DataConfig) -> Collection[str]:
        of_labels = ("entity_f1", "entity_precision", "entity_recall", "accuracy") if data.labelled else ()
        return (*of_labels, "agreement", "kl")
