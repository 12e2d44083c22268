"""How it becomes ONNX."""

from dataclasses import dataclass

from compress.config.checks import within
from compress.registry import option


@dataclass(kw_only=True)
class ExportConfig:
    pass


@option(
    "export",
    "optimum",
    "compress.export.optimum:export",
    works_on=("sentence_embedding", "language_modeling"),
)
@dataclass(kw_only=True)
class OptimumExport(ExportConfig):
    opset: int = 18
    fuse: bool = True  # attention becomes one operator in what ships; the dense baseline stays plain
    max_abs_diff: float = 1e-4  # the parity gate: torch against ONNX on real inputs
    min_cosine: float = 0.99999

    def __post_init__(self) -> None:
        within(self, 14, 23, "opset")
        within(self, 0.0, 1.0, "max_abs_diff", "min_cosine", open_low=True)


@option(
    "export",
    "torch",
    "compress.export.torch_onnx:export",
    works_on=("sentence_embedding", "image_classification"),
)
@dataclass(kw_only=True)
class TorchExport(ExportConfig):
    """By torch's own exporter."""

    opset: int = 18
    max_abs_diff: float = 1e-3  # of logits; the parity gate: torch against ONNX on real inputs
    min_cosine: float = 0.99999

    def __post_init__(self) -> None:
        within(self, 14, 23, "opset")
        within(self, 0.0, 1.0, "max_abs_diff", "min_cosine", open_low=True)


@option("export", "genai", "compress.export.genai:export", works_on=("language_modeling",))
@dataclass(kw_only=True)
class GenaiExport(ExportConfig):
    """By onnxruntime-genai's model builder: language models."""

    max_abs_diff: float = 1e-2  # of logits; the parity gate: torch against ONNX on real text
    min_cosine: float = 0.99999

    def __post_init__(self) -> None:
        within(self, 0.0, 1.0, "max_abs_diff", "min_cosine", open_low=True)
