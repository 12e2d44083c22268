"""How it gets its quality back."""

from dataclasses import dataclass, field
from enum import Enum

from omegaconf import MISSING

from compress.config.checks import Checked, number, positive, random_seed, share
from compress.errors import ConfigError
from compress.registry import option


@dataclass(kw_only=True)
class RecoverConfig(Checked):
    pass


@option("recover", "none", None)
@dataclass(kw_only=True)
class NoRecover(RecoverConfig):
    pass


class Precision(Enum):
    auto = "auto"  # bfloat16 where the processor multiplies it in hardware, else float32
    float32 = "float32"
    bfloat16 = "bfloat16"


class Device(Enum):
    auto = "auto"  # the first GPU of CUDA where there is one, else the CPU
    cpu = "cpu"
    cuda = "cuda"


@dataclass(kw_only=True)
class FitText(Checked):
    """How an encoder of texts is trained; the rate rises, then falls by a cosine."""

    steps: int = number(700, 1)
    batch_tokens: int = number(2048, 1)  # padded tokens a step
    learning_rate: float = number(3e-4, 0, 1)
    warmup: float = share(0.05)  # share of the steps
    weight_decay: float = number(0.01, 0, 1)
    max_length: int = number(128, 8, 8192)  # tokens
    precision: Precision = Precision.auto
    device: Device = Device.auto
    evaluate_every: int = number(50, 1)  # steps between evaluations on the select split
    patience: int = number(4, 1)  # evaluations without improvement before it stops
    max_minutes: float | None = positive(None)
    seed: int = random_seed()


@option("recover", "distill", "compress.recover.distillation:distill", works_on=("encoder",))
@dataclass(kw_only=True)
class Distill(FitText, RecoverConfig):
    """Distillation of answers (embeddings, logits) and hidden states from the dense teacher, on any text."""

    # Of the hidden states' loss beside the embeddings'. On MiniLM it gave the same quality for the same
    # tokens, each 20 % dearer, so it is off unless asked for.
    hidden_weight: float = number(0.0, 0)
    # of the labels' loss beside that of the teacher's answers, on examples that have labels
    label_weight: float = number(0.0, 0, works_on=("labelled_text",))
    # in the labels' loss every class counts the same, however seldom it is, as in train=head
    balanced: bool = field(default=False, metadata={"works_on": ("labelled_text",)})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.balanced and not self.label_weight:
            raise ConfigError(
                "balanced weighs classes in the loss of labels, which has no weight",
                found="label_weight=0",
                next="recover.label_weight=0.5",
            )


@option("recover", "distill_logits", "compress.tasks.language_modeling.training:distill")
@dataclass(kw_only=True)
class DistillLogits(RecoverConfig):
    """Distillation of a language model from the dense one's likeliest next tokens, on unlabelled text."""

    steps: int = number(150, 1)
    batch_windows: int = number(4, 1)  # windows a step
    context: int = number(512, 8, 1_000_000)  # tokens of a window
    top_k: int = number(64, 1, 4096)  # of the teacher's tokens at each place; all others count as one
    learning_rate: float = number(5e-5, 0, 1)  # 2e-4 made a lightly pruned model worse at first
    warmup: float = share(0.05)  # share of the steps
    weight_decay: float = number(0.0, 0, 1)
    precision: Precision = Precision.auto
    device: Device = Device.auto
    select_windows: int = number(16, 1)  # of the select split, at most
    evaluate_every: int = number(25, 1)  # steps between evaluations on them
    patience: int = number(4, 1)  # evaluations without improvement before it stops
    max_minutes: float | None = positive(None)
    seed: int = random_seed()


class Optimizer(Enum):
    sgd = "sgd"  # with Nesterov's momentum: convolutional nets
    adamw = "adamw"  # transformers


@dataclass(kw_only=True)
class Fit(Checked):
    """How a classifier of images is trained on labels; the rate rises and falls once (Smith 2018)."""

    epochs: int = number(10, 1)
    batch_size: int = number(128, 1)
    optimizer: Optimizer = Optimizer.sgd
    learning_rate: float = positive(0.1, 10.0)  # at the peak
    warmup: float = share(0.2)  # share of the steps until the peak
    weight_decay: float = number(5e-4, 0, 1)  # of weights of two axes and more
    label_smoothing: float = share(0.1)
    augment: bool = True  # shifted, mirrored, a square erased
    shift: int = number(2, 0, 16)  # pixels, at most
    flip: bool = True
    erase: float = share(0.5)  # share of the images
    distill: float = share(0.0)  # share of the loss that a teacher's answers have (Hinton et al. 2015)
    temperature: float = positive(4.0, 100.0)
    ema: float = number(0.0, 0.0, 0.99999)  # of the weights, a step; 0: off
    precision: Precision = Precision.auto
    device: Device = Device.auto
    patience: int = number(1000, 1)  # epochs without a better accuracy on select before it stops
    max_minutes: float | None = positive(None)
    seed: int = random_seed()


@option("recover", "finetune", "compress.tasks.image_classification.training:finetune")
@dataclass(kw_only=True)
class Finetune(Fit, RecoverConfig):
    """Training of the pruned classifier on labels and on the dense model's answers."""

    learning_rate: float = 0.02
    label_smoothing: float = 0.0
    distill: float = 0.9


@dataclass(kw_only=True)
class TrainConfig(Checked):
    pass


@option("train", "none", None)
@dataclass(kw_only=True)
class NoTrain(TrainConfig):
    pass


@option("train", "supervised", "compress.tasks.image_classification.baseline:fit_baseline")
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


@option("train", "head", "compress.tasks.text.baseline:fit_baseline", works_on=("labelled_text",))
@dataclass(kw_only=True)
class TrainHead(FitText, TrainConfig):
    """`compress train`: a new head on an encoder, both trained on labels."""

    encoder: str = MISSING  # source of a folder in the layout of Hugging Face
    sha256: str | None = None
    batch_tokens: int = 4096
    learning_rate: float = 1e-4
    warmup: float = 0.1
    balanced: bool = False  # every class counts the same, however seldom it is
    candidates: int = number(8, 2, 1000)  # passages of a query, of rerankers
