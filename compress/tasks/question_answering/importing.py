"""A published model that answers questions to a checkpoint of ours."""

from pathlib import Path

from compress.tasks.question_answering.model import QuestionAnswerer
from compress.tasks.question_answering.options import QuestionAnswererModel
from compress.tasks.text.importing import import_headed


def import_question_answerer(config: QuestionAnswererModel, out: Path) -> None:
    """Turn a published folder into a checkpoint of ours; pickled weights are refused."""
    import_headed(config, out, QuestionAnswerer)
