"""What both exporters do around the call that may fail."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from compress.errors import CompressError


@contextmanager
def attempt() -> Iterator[None]:
    """Silence the TorchScript exporter's tracer and deprecation warnings; explain its failure.

    Raises CompressError where the net has an operator that cannot be exported.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (RuntimeError, ValueError, TypeError, torch.onnx.OnnxExporterError) as error:
        raise CompressError(
            "the model cannot be exported to ONNX",
            found=str(error).strip().splitlines()[0],
            next="try another opset: export.opset=17",
        ) from error
