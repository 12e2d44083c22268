"""What is measured of its quality."""

from dataclasses import dataclass

from compress.config.checks import check_seed, within
from compress.errors import ConfigError, did_you_mean


@dataclass(kw_only=True)
class EvaluateConfig:
    pass


@dataclass(kw_only=True)
class SentenceSimilarity(EvaluateConfig):
    primary: str = "lee_spearman"
    resamples: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        within(self, 100, 100_000, "resamples")
        check_seed(self)


IMAGE_METRICS = ("accuracy", "top5_accuracy", "nll", "agreement", "kl")


@dataclass(kw_only=True)
class ImageClassification(EvaluateConfig):
    primary: str = "accuracy"
    resamples: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        within(self, 100, 100_000, "resamples")
        check_seed(self)
        if self.primary not in IMAGE_METRICS:
            raise ConfigError(
                "primary names no metric",
                found=self.primary,
                allowed=did_you_mean(self.primary, IMAGE_METRICS),
            )
