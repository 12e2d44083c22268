"""How what ships is laid out, and what ships beside it."""

from dataclasses import dataclass

from compress.config.checks import Checked
from compress.errors import ConfigError, did_you_mean
from compress.schema.layout import LAYOUTS, PLAIN

NONE = "none"
_GGUF = (NONE, "f16", "q8_0", "q4_0")


@dataclass(frozen=True, kw_only=True)
class GgufFile:
    format: str  # of its matrices


@dataclass(kw_only=True)
class ShipConfig(Checked):
    layout: str = PLAIN  # or transformers.js: the graph as onnx/model_quantized.onnx and the like
    gguf: str = NONE  # or f16, q8_0, q4_0: a language model's checkpoint also as GGUF, for llama.cpp

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, allowed in (("layout", LAYOUTS), ("gguf", _GGUF)):
            if (found := getattr(self, name)) not in allowed:
                raise ConfigError(
                    f"{name} has no such value", found=found, allowed=did_you_mean(found, allowed)
                )

    @property
    def gguf_file(self) -> GgufFile | None:
        return None if self.gguf == NONE else GgufFile(format=self.gguf)

    def check_task(self, task: str) -> None:
        """Raise ConfigError where models of this task do not ship so."""
        if self.gguf != NONE and task != "language_modeling":
            raise ConfigError(
                "ship.gguf works on language models alone", found=f"task {task}", allowed=f"ship.gguf={NONE}"
            )
