"""What a run is asked for, of a classifier of texts."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

from compress.config.data import DataConfig
from compress.config.evaluate import EvaluateConfig
from compress.config.model import HeadedEncoder
from compress.registry import option

FIDELITY = ("agreement", "kl")


@option("model", "text_classifier", "compress.tasks.text_classification.importing:import_text_classifier")
@dataclass(kw_only=True)
class TextClassifierModel(HeadedEncoder):
    """A classifier of texts or pairs of texts: of one label each, of several, or a regression."""

    task: ClassVar[str] = "text_classification"
    what: ClassVar[str] = "a text classifier"
    head: ClassVar[str] = "AutoModelForSequenceClassification"
    examples: ClassVar[str] = "text"
    published_as: ClassVar[tuple[str, ...]] = ("text-classification",)


@option("evaluate", "text_classification", "compress.tasks.text_classification.metrics:compare")
@dataclass(kw_only=True)
class TextClassification(EvaluateConfig):
    """Accuracy, F1, Matthews' correlation, AUC, of values correlation; and agreement with the dense model."""

    # null: accuracy, of several labels a text micro_f1, of values spearman, without labels the agreement
    primary: str | None = None

    def metrics(self, data: DataConfig) -> Collection[str]:
        of_labels = ("accuracy", "macro_f1", "micro_f1", "mcc", "auc", "nll", "spearman", "pearson")
        return (*(of_labels if data.labelled else ()), *FIDELITY)
