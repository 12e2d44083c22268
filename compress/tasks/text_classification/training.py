"""Distillation of a classifier of texts."""

from functools import partial

from compress.tasks.text.head_training import distill_headed
from compress.tasks.text_classification.model import TextClassifier

distill = partial(distill_headed, TextClassifier)
