"""What is compressed."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from omegaconf import MISSING

from compress.config.checks import Checked, number
from compress.registry import option


@dataclass(kw_only=True)
class ModelConfig(Checked):
    task: ClassVar[str]  # decides which options of the other groups work on the model
    # What tasks have in common. text: they read unlabelled text; encoder: their models are a text encoder,
    # with a head or without; labelled_text: they are judged by records with labels.
    traits: ClassVar[tuple[str, ...]] = ()
    what: ClassVar[str] = "a model"  # as errors call it
    published_as: ClassVar[tuple[str, ...]] = ()  # of transformers' tasks, by which a published one is told
    has_cache: ClassVar[bool] = False  # of tokens, so that workloads such as 1x1+442 make sense
    examples: ClassVar[str] = ""  # that it reads of labelled text: a kind of compress.data.layouts

    source: str = MISSING  # path:, hf:org/name@revision or package:dist==version/folder
    sha256: str | None = None  # of the wheel, for package:; of the folder's content, for others
    base_model: str | None = None  # its name on the model card
    license: str | None = None

    def net(self) -> tuple[str, dict[str, Any]] | None:
        """What `compress train` makes: package.module:function and its keyword arguments."""
        return None


@option("model", "encoder", "compress.tasks.sentence_embedding.importing:import_encoder")
@dataclass(kw_only=True)
class EncoderModel(ModelConfig):
    """A BERT-like sentence encoder: a folder in Hugging Face or sentence-transformers layout."""

    task: ClassVar[str] = "sentence_embedding"
    traits: ClassVar[tuple[str, ...]] = ("text", "encoder")
    what: ClassVar[str] = "a sentence encoder"
    published_as: ClassVar[tuple[str, ...]] = ("feature-extraction", "fill-mask")

    prompt: str | None = None  # name of the one in front of every text; null: what the model says
    # numbers of an embedding that are given, its first: for models that were trained so (Matryoshka)
    dimensions: int | None = number(None, 1)


@dataclass(kw_only=True)
class HeadedEncoder(ModelConfig):
    """A text encoder with a head, in the layout of Hugging Face; its task's folder declares the option."""

    head: ClassVar[str]  # the class of transformers that opens it

    traits: ClassVar[tuple[str, ...]] = ("text", "encoder", "labelled_text")

    def net(self) -> tuple[str, dict[str, Any]] | None:
        return f"transformers:{self.head}", {}


@option("model", "image_classifier", "compress.tasks.image_classification.importing:import_image_classifier")
@dataclass(kw_only=True)
class ImageClassifierModel(ModelConfig):
    """A classifier of images: config.json, model.safetensors and preprocessor_config.json in a folder.

    Of transformers, of timm (whose config.json has the preprocessing too), or of any function that builds it.
    """

    task: ClassVar[str] = "image_classification"
    what: ClassVar[str] = "a classifier of images"
    published_as: ClassVar[tuple[str, ...]] = ("image-classification",)

    # package.module:function that makes the net: code that a checkpoint names runs only if this names it too
    builder: str | None = None
    # for `compress train`, and for a source with weights but no config.json
    builder_kwargs: dict[str, Any] = field(default_factory=dict)

    def net(self) -> tuple[str, dict[str, Any]] | None:
        return (self.builder, dict(self.builder_kwargs)) if self.builder else None


@option("model", "causal_lm", "compress.tasks.language_modeling.importing:import_causal_lm")
@dataclass(kw_only=True)
class CausalLMModel(ModelConfig):
    """A language model of the LLaMA family: a folder in Hugging Face layout, or a GGUF file."""

    task: ClassVar[str] = "language_modeling"
    traits: ClassVar[tuple[str, ...]] = ("text",)
    what: ClassVar[str] = "a language model"
    published_as: ClassVar[tuple[str, ...]] = ("text-generation",)
    has_cache: ClassVar[bool] = True
