"""What a run is asked for, of a reranker."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

from compress.config.checks import number
from compress.config.data import DataConfig
from compress.config.evaluate import EvaluateConfig
from compress.config.model import HeadedEncoder
from compress.registry import option


@option("model", "reranker", "compress.tasks.reranking.importing:import_reranker")
@dataclass(kw_only=True)
class RerankerModel(HeadedEncoder):
    """A cross-encoder: one number for a query and a passage, by which passages are ranked."""

    task: ClassVar[str] = "reranking"
    what: ClassVar[str] = "a reranker"
    head: ClassVar[str] = "AutoModelForSequenceClassification"
    examples: ClassVar[str] = "ranking"
    published_as: ClassVar[tuple[str, ...]] = ("text-classification",)


@option("evaluate", "reranking", "compress.tasks.reranking.metrics:compare")
@dataclass(kw_only=True)
class Reranking(EvaluateConfig):
    """nDCG, MRR and recall of the passages of each query; and how alike the dense model ranks them."""

    # null: ndcg@10, without labels rank_correlation, without several passages a query score_difference
    primary: str | None = None
    batch: int = number(32, 1, 4096)  # passages of a query that the model reads at a time, as it is used

    def metrics(self, data: DataConfig) -> Collection[str]:
        of_labels = ("ndcg@10", "mrr@10", "recall@10") if data.labelled else ()
        return (*of_labels, "rank_correlation", "score_difference")
