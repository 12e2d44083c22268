"""How it becomes ONNX."""

from dataclasses import dataclass

from compress.config.checks import Checked, number, positive
from compress.registry import option


@dataclass(kw_only=True)
class ExportConfig(Checked):
    # the parity gate: torch against ONNX on real inputs
    max_abs_diff: float = positive(1e-4, 1.0)
    min_cosine: float = positive(0.99999, 1.0)


@option(
    "export",
    "optimum",
    "compress.export.optimum:export",
    not_on=("image_classification",),
)
@dataclass(kw_only=True)
class OptimumExport(ExportConfig):
    opset: int = number(18, 14, 23)
    fuse: bool = True  # attention becomes one operator in what ships; the dense baseline stays plain


@option(
    "export",
    "torch",
    "compress.export.torch_onnx:export",
    not_on=("language_modeling",),
)
@dataclass(kw_only=True)
class TorchExport(ExportConfig):
    """By torch's own exporter."""

    opset: int = number(18, 14, 23)
    max_abs_diff: float = 1e-3  # of logits


@option("export", "genai", "compress.export.genai:export", works_on=("language_modeling",))
@dataclass(kw_only=True)
class GenaiExport(ExportConfig):
    """By onnxruntime-genai's model builder: language models."""

    max_abs_diff: float = 1e-2  # of logits
