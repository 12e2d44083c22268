"""What is measured of its quality."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from compress.config.checks import Checked, Range, number, random_seed
from compress.config.data import DataConfig
from compress.registry import option


@dataclass(kw_only=True)
class EvaluateConfig(Checked):
    resamples: int = number(2000, 100, 100_000)  # of the bootstrap
    seed: int = random_seed()
    on_target: bool = False  # what the target computes is scored, in place of what onnxruntime computes here

    def metrics(self, data: DataConfig) -> Collection[str]:
        """Names of all that an evaluation on `data` reports."""
        raise NotImplementedError


@option("evaluate", "sentence_similarity", "compress.tasks.sentence_embedding.metrics:compare")
@dataclass(kw_only=True)
class SentenceSimilarity(EvaluateConfig):
    primary: str = "lee_spearman"

    def metrics(self, data: DataConfig) -> Collection[str]:
        judged = [f"{name}_{kind}" for name in data.judged_pairs() for kind in ("spearman", "pearson")]
        retrieval = retrieval_metrics() if "test" in data.retrieval_splits() else ()
        return ["cosine", "cosine_p5", *judged, *retrieval]


def retrieval_metrics() -> tuple[str, ...]:
    """What `SentenceSimilarity` reports of queries and passages."""
    return "retrieval_ndcg10", "retrieval_mrr10", "retrieval_recall10"


@dataclass(kw_only=True)
class Classification(EvaluateConfig):
    primary: str = "accuracy"

    def metrics(self, data: DataConfig) -> Collection[str]:
        return "accuracy", "top5_accuracy", "nll", "agreement", "kl"


@option("evaluate", "image_classification", "compress.tasks.image_classification.metrics:compare")
@dataclass(kw_only=True)
class ImageClassification(Classification):
    pass


@option("evaluate", "language_modeling", "compress.tasks.language_modeling.metrics:compare")
@dataclass(kw_only=True)
class LanguageModeling(EvaluateConfig):
    """Likelihood of held-out documents, and what the model writes by itself, beside the dense model."""

    primary: str | None = None  # null: bits_per_byte of the first corpus that is tested
    context: int = number(512, 16, 1_000_000)  # tokens of a window
    # tokens from one window to the next; a token is scored once, in the first that has it
    stride: int = number(512, 1)
    tokens: int = number(8192, 32)  # of each domain at most, by the dense model's tokenizer
    prompts: int = number(4, 0, 100)  # beginnings of test documents that both models continue; 0: none
    prompt_tokens: int = number(32, 1, 10_000)
    new_tokens: int = number(48, 1, 10_000)

    def __post_init__(self) -> None:
        super().__post_init__()
        Range(1, self.context).check("stride", self.stride)

    def metrics(self, data: DataConfig) -> Collection[str]:
        return language_metrics(data.domains())


def language_metrics(domains: Iterable[str]) -> list[str]:
    """What `LanguageModeling` reports; all are better when lower but the agreement."""
    per_domain = [f"{kind}_{name}" for name in domains for kind in ("bits_per_byte", "perplexity")]
    return [*per_domain, "kl", "top1_agreement"]
