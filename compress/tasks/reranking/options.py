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
    published_as: ClassVar[tuple[str, ...]] = ("text-classification",)


@option("evaluate", "reranking", "compress.tasks.reranking.metrics:compare")
@dataclass(kw_only=True)
class Reranking(EvaluateConfig):
    """How alike the model and the dense one rank the passages of each query."""

    primary: str | None = None  # null: rank_correlation, without several passages a query score_difference
    batch: int = number(32, 1, 4096)  # passages of a query that the model reads at a time, as it is used

    def metrics(self, data: DataConfig) -> Collection[str]:
        return ("rank_correlation", "score_difference")
