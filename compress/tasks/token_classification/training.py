"""Distillation of a tagger."""

from functools import partial

from compress.tasks.text.head_training import distill_headed
from compress.tasks.token_classification.model import TokenClassifier

distill = partial(distill_headed, TokenClassifier)
