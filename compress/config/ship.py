"""How what ships is laid out."""

from dataclasses import dataclass

from compress.config.checks import Checked
from compress.errors import ConfigError, did_you_mean
from compress.schema.layout import LAYOUTS, PLAIN


@dataclass(kw_only=True)
class ShipConfig(Checked):
    layout: str = PLAIN  # or transformers.js: the graph as onnx/model_quantized.onnx and the like

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layout not in LAYOUTS:
            raise ConfigError(
                "layout has no such value", found=self.layout, allowed=did_you_mean(self.layout, LAYOUTS)
            )
