"""What a run is asked for, of a model that answers questions."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

from compress.config.checks import number
from compress.config.data import DataConfig
from compress.config.evaluate import EvaluateConfig
from compress.config.model import HeadedEncoder
from compress.registry import option


@option("model", "question_answerer", "compress.tasks.question_answering.importing:import_question_answerer")
@dataclass(kw_only=True)
class QuestionAnswererModel(HeadedEncoder):
    """Extractive question answering: where in a context the answer begins and ends."""

    task: ClassVar[str] = "question_answering"
    what: ClassVar[str] = "a model that answers questions"
    head: ClassVar[str] = "AutoModelForQuestionAnswering"
    examples: ClassVar[str] = "answering"
    published_as: ClassVar[tuple[str, ...]] = ("question-answering",)


@option("evaluate", "question_answering", "compress.tasks.question_answering.metrics:compare")
@dataclass(kw_only=True)
class QuestionAnswering(EvaluateConfig):
    """Exact match and F1 of SQuAD; and how often the model gives the dense model's answer."""

    primary: str | None = None  # null: f1, without answers the agreement
    answer_tokens: int = number(30, 1, 512)  # of an answer at most

    def metrics(self, data: DataConfig) -> Collection[str]:
        return (*(("f1", "exact_match") if data.labelled else ()), "agreement", "score_difference")
