"""How it gets its quality back."""

from dataclasses import dataclass
from enum import Enum

from compress.config.checks import check_seed, within
from compress.errors import ConfigError
from compress.registry import option


@dataclass(kw_only=True)
class RecoverConfig:
    pass


@option("recover", "none", None)
@dataclass(kw_only=True)
class NoRecover(RecoverConfig):
    pass


class Precision(Enum):
    auto = "auto"  # bfloat16 where the CPU multiplies it in hardware, else float32
    float32 = "float32"
    bfloat16 = "bfloat16"


@option("recover", "distill", "compress.recover.distill:recover", works_on=("sentence_embedding",))
@dataclass(kw_only=True)
class Distill(RecoverConfig):
    """Distillation of embeddings and hidden states from the dense teacher on unlabelled text."""

    steps: int = 700
    batch_tokens: int = 2048  # padded tokens a step
    learning_rate: float = 3e-4
    warmup: float = 0.05  # share of the steps
    weight_decay: float = 0.01
    # Of the hidden states' loss beside the embeddings'. On MiniLM it gave the same quality for the same
    # tokens, each 20 % dearer, so it is off unless asked for.
    hidden_weight: float = 0.0
    max_length: int = 128  # tokens
    precision: Precision = Precision.auto
    evaluate_every: int = 50  # steps between looks at the select split
    patience: int = 4  # looks without improvement before it stops
    max_minutes: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        within(self, 1, float("inf"), "steps", "batch_tokens", "evaluate_every", "patience")
        within(self, 0.0, 1.0, "learning_rate", "weight_decay")
        within(self, 0.0, 1.0, "warmup")
        within(self, 0.0, float("inf"), "hidden_weight")
        within(self, 8, 8192, "max_length")
        if self.max_minutes is not None:
            within(self, 0.0, float("inf"), "max_minutes", open_low=True)
        check_seed(self)


@option(
    "recover", "distill_logits", "compress.recover.distill_logits:recover", works_on=("language_modeling",)
)
@dataclass(kw_only=True)
class DistillLogits(RecoverConfig):
    """Distillation of a language model from the dense one's likeliest next tokens, on unlabelled text."""

    steps: int = 150
    batch_windows: int = 4  # windows a step
    context: int = 512  # tokens of a window
    top_k: int = 64  # of the teacher's tokens at each place; all others count as one
    learning_rate: float = 5e-5  # 2e-4 made a lightly pruned model worse at first
    warmup: float = 0.05  # share of the steps
    weight_decay: float = 0.0
    precision: Precision = Precision.auto
    select_windows: int = 16  # of the select split, at most
    evaluate_every: int = 25  # steps between looks at them
    patience: int = 4  # looks without improvement before it stops
    max_minutes: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        within(
            self, 1, float("inf"), "steps", "batch_windows", "select_windows", "evaluate_every", "patience"
        )
        within(self, 8, 1_000_000, "context")
        within(self, 1, 4096, "top_k")
        within(self, 0.0, 1.0, "learning_rate", "warmup", "weight_decay")
        if self.max_minutes is not None:
            within(self, 0.0, float("inf"), "max_minutes", open_low=True)
        check_seed(self)


class Optimizer(Enum):
    sgd = "sgd"  # with Nesterov's momentum: convolutional nets
    adamw = "adamw"  # transformers


@dataclass(kw_only=True)
class Fit:
    """How a classifier of images is trained on labels; the rate rises and falls once (Smith 2018)."""

    epochs: int = 10
    batch_size: int = 128
    optimizer: Optimizer = Optimizer.sgd
    learning_rate: float = 0.1  # at the peak
    warmup: float = 0.2  # share of the steps until the peak
    weight_decay: float = 5e-4  # of weights of two axes and more
    label_smoothing: float = 0.1
    augment: bool = True  # shifted, mirrored, a square erased
    shift: int = 2  # pixels, at most
    flip: bool = True
    erase: float = 0.5  # share of the images
    distill: float = 0.0  # share of the loss that a teacher's answers have (Hinton et al. 2015)
    temperature: float = 4.0
    ema: float = 0.0  # of the weights, a step; 0: off
    precision: Precision = Precision.auto
    patience: int = 1000  # epochs without a better accuracy on select before it stops
    max_minutes: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        within(self, 1, float("inf"), "epochs", "batch_size", "patience")
        within(self, 0, 16, "shift")
        within(self, 0.0, 10.0, "learning_rate", open_low=True)
        within(self, 0.0, 1.0, "warmup", "weight_decay", "label_smoothing", "erase", "distill")
        within(self, 0.0, 100.0, "temperature", open_low=True)
        within(self, 0.0, 0.99999, "ema")
        if self.max_minutes is not None:
            within(self, 0.0, float("inf"), "max_minutes", open_low=True)
        check_seed(self)


@option("recover", "finetune", "compress.recover.finetune:finetune", works_on=("image_classification",))
@dataclass(kw_only=True)
class Finetune(Fit, RecoverConfig):
    """Training of the pruned classifier on labels and on the dense model's answers."""

    learning_rate: float = 0.02
    label_smoothing: float = 0.0
    distill: float = 0.9


@dataclass(kw_only=True)
class TrainConfig:
    pass


@option("train", "none", None)
@dataclass(kw_only=True)
class NoTrain(TrainConfig):
    pass


@option("train", "supervised", "compress.recover.baseline:fit_baseline", works_on=("image_classification",))
@dataclass(kw_only=True)
class Supervised(Fit, TrainConfig):
    """`compress train`: a baseline from nothing."""

    # Source of a classifier whose answers are learned too: a ViT needs that on few images (Touvron 2021).
    teacher: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.distill) != bool(self.teacher):
            raise ConfigError(
                "a teacher and the share of the loss that its answers have belong together",
                found=f"teacher={self.teacher}, distill={self.distill:g}",
                next="train.teacher=path:experiments/fashion_resnet/checkpoint train.distill=0.5",
            )
