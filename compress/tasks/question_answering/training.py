"""Distillation of a model that answers questions."""

from functools import partial

from compress.tasks.question_answering.model import QuestionAnswerer
from compress.tasks.text.head_training import distill_headed

distill = partial(distill_headed, QuestionAnswerer)
