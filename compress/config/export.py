"""How it becomes ONNX."""

from dataclasses import dataclass

from compress.config.checks import Checked, number, positive
from compress.registry import option


@dataclass(kw_only=True)
class ExportConfig(Checked):
    # The parity gate: torch against ONNX on real inputs. Against float64, Gemma 3 270M with random weights
    # and all 18 layers is off by 1.4e-6 of the largest output in torch, and by as much in either graph.
    max_abs_diff: float = positive(1e-4, 1.0)  # times the largest output, where that is above 1
    min_cosine: float = positive(0.99999, 1.0)


@option("export", "torch", "compress.export.torch_onnx:export")
@dataclass(kw_only=True)
class TorchExport(ExportConfig):
    """By torch.export."""

    opset: int = number(23, 18, 23)  # the first that has Attention is 23
    fuse: bool = True  # for onnxruntime's kernels; the dense baseline stays plain


@option("export", "genai", "compress.export.genai:export", works_on=("language_modeling",), needs="builder")
@dataclass(kw_only=True)
class GenaiExport(ExportConfig):
    """By onnxruntime-genai's model builder: language models."""

    # Largest seen of what is right: 1.1e-4, LongRoPE at position 131,072; SmolLM2 4e-6.
    max_abs_diff: float = 2e-4


@option("export", "auto", "compress.export.auto:export", works_on=("language_modeling",))
@dataclass(kw_only=True)
class AutoExport(ExportConfig):
    """As genai where that graph passes its gate, else as torch: language models."""

    max_abs_diff: float = 2e-4
