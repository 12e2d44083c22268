"""Distillation of a reranker."""

from functools import partial

from compress.tasks.reranking.model import Reranker
from compress.tasks.text.head_training import distill_headed

distill = partial(distill_headed, Reranker)
