"""What differs between kinds of model, one file each.

A checkpoint is a folder in Hugging Face layout plus `compress.json`, which names its family, so that
every stage can open what an earlier one left without being told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from compress import sources
from compress.config.model import CausalLMModel, EncoderModel, ImageClassifierModel, ModelConfig
from compress.errors import ModelError, did_you_mean
from compress.models.checkpoint import Facts, read_facts, shipped_files
from compress.models.summary import Summary, read_check_inputs, read_summary
from compress.registry import implementation
from compress.stages.result import write_result

if TYPE_CHECKING:  # torch and transformers take seconds: not before a model has to be opened
    from torch import Tensor, nn

    from compress.models.causal_lm import CausalLM
    from compress.models.encoder import Encoder
    from compress.models.image_classifier import ImageClassifier
    from compress.models.layers import Stack

__all__ = [
    "Facts",
    "Model",
    "Summary",
    "identity",
    "import_model",
    "load",
    "load_causal_lm",
    "load_encoder",
    "load_image_classifier",
    "read_check_inputs",
    "read_facts",
    "read_summary",
    "shipped_files",
]


class Model(Protocol):
    """What every family gives to the stages. `examples` are those of a split: texts, or images."""

    @property
    def module(self) -> nn.Module: ...

    @property
    def facts(self) -> Facts: ...

    @property
    def input_names(self) -> tuple[str, ...]: ...

    @property
    def output_name(self) -> str: ...

    def batches(self, examples: Any, size: int) -> Iterator[dict[str, Tensor]]:
        """Inputs of at most `size` examples each; their order may be another."""

    def workload(self, examples: Any, batch: int, size: int) -> Mapping[str, Tensor]:
        """Inputs of exactly this batch and size: tokens, or pixels a side."""

    def run(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """What the module gives for these inputs: (batch, ...)."""

    def example(self) -> Any:
        """A small input for tracing the module."""

    def widths(self) -> dict[str, tuple[int, ...]]: ...

    @property
    def stack(self) -> Stack:
        """The module's transformer layers; raises ModelError where it has none."""

    def save(self, folder: Path, facts: Facts) -> None: ...


def import_model(config: ModelConfig, out: Path) -> None:
    """Fetch the model that `config` names and write it as a checkpoint; raises ModelError, SourceError."""
    implementation(config)(config, out)
    write_result(out, ships=shipped_files(out))


def identity(config: ModelConfig) -> str:
    """Digest of what `import_model` would fetch; nothing is downloaded for a pinned source."""
    assert isinstance(config, EncoderModel | ImageClassifierModel | CausalLMModel)
    return sources.identity(config.source, config.sha256)


def load(checkpoint: Path, attention: str = "sdpa") -> Model:
    """Open a checkpoint written by a stage; raises ModelError when it is not intact."""
    from compress.models import causal_lm, encoder, image_classifier

    families: dict[str, Any] = {
        encoder.FAMILY: encoder.Encoder,
        image_classifier.FAMILY: image_classifier.ImageClassifier,
        causal_lm.FAMILY: causal_lm.CausalLM,
    }
    facts = read_facts(checkpoint)
    if facts.family not in families:
        raise ModelError(
            f"{checkpoint} is of an unknown family",
            found=facts.family,
            allowed=did_you_mean(facts.family, families),
        )
    model: Model = families[facts.family].load(checkpoint, facts, attention)
    return model


def load_encoder(checkpoint: Path, attention: str = "sdpa") -> Encoder:
    """Like `load`, for what works on sentence encoders only; raises ModelError for another family."""
    from compress.models.encoder import Encoder

    found = load(checkpoint, attention)
    if not isinstance(found, Encoder):
        raise _of_another_family(found, "a sentence encoder", "prune=none recover=none export=torch")
    return found


def load_image_classifier(checkpoint: Path) -> ImageClassifier:
    """Like `load`, for what works on classifiers of images only; raises ModelError for another family."""
    from compress.models.image_classifier import ImageClassifier

    found = load(checkpoint)
    if not isinstance(found, ImageClassifier):
        raise _of_another_family(found, "a classifier of images", "recover=distill export=optimum")
    return found


def load_causal_lm(checkpoint: Path, attention: str = "sdpa") -> CausalLM:
    """Like `load`, for what works on language models only; raises ModelError for another family."""
    from compress.models.causal_lm import CausalLM

    found = load(checkpoint, attention)
    if not isinstance(found, CausalLM):
        raise _of_another_family(
            found, "a language model", "the options of experiment=minilm or fashion_resnet"
        )
    return found


def _of_another_family(found: Model, wanted: str, advice: str) -> ModelError:
    return ModelError(
        "an option of the configuration does not work on this kind of model",
        found=found.facts.family,
        allowed=wanted,
        next=f"choose options of its own: {advice}",
    )
