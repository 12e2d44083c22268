"""Prune, quantize and measure open-weight models: a checkpoint in, an ONNX file that ships out."""

from compress.config.run import RunConfig
from compress.errors import CompressError
from compress.schema.report import Report

__all__ = ["CompressError", "Report", "RunConfig", "__version__"]
__version__ = "0.1.0"
