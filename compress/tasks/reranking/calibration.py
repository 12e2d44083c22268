"""What a reranker is pruned by."""

from compress.tasks.text.calibration import open_calibration

__all__ = ["open_calibration"]
