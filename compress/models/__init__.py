"""Checkpoints and architectures; what a model is for lies in `compress.tasks`.

A checkpoint is a folder in Hugging Face layout plus `compress.json`, which names its task, so that every
stage can open what an earlier one left.
"""

from compress.models.checkpoint import Facts, read_facts, shipped_files
from compress.models.summary import Summary, check_options, read_check_inputs, read_summary

__all__ = [
    "Facts",
    "Summary",
    "check_options",
    "read_check_inputs",
    "read_facts",
    "read_summary",
    "shipped_files",
]
