"""What it is calibrated, trained, chosen and judged with."""

from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar

from omegaconf import MISSING

from compress.config.checks import Checked, Range, number, positive, random_seed
from compress.errors import ConfigError
from compress.registry import option


class TextFormat(Enum):
    lines = "lines"  # a document a line
    mediawiki = "mediawiki"  # a MediaWiki XML dump, plain or bz2
    table = "table"  # a document a row, in a column of a jsonl, json, csv, tsv, parquet or arff file


class PairFormat(Enum):
    matrix = "matrix"  # a file of texts and a square matrix of similarities
    tsv = "tsv"  # text, text, score


class Split(Enum):
    """What an example is for; none is in two."""

    calibration = "calibration"
    train = "train"
    select = "select"
    test = "test"


class PairSplit(Enum):
    """Which split judges by a file of pairs."""

    select = "select"
    test = "test"


@dataclass(kw_only=True)
class TextFile:
    """One corpus of unlabelled text."""

    source: str = MISSING
    sha256: str | None = None
    format: TextFormat = TextFormat.lines
    column: str = "text"  # of a table
    encoding: str = "utf-8"


@dataclass(kw_only=True)
class PairFile:
    """Human judgements of the similarity of pairs of texts."""

    split: PairSplit = PairSplit.test
    format: PairFormat = PairFormat.tsv
    source: str = MISSING
    sha256: str | None = None
    texts: str | None = None  # source of the texts, one a line, for the matrix format
    encoding: str = "utf-8"


@dataclass(kw_only=True)
class DataConfig(Checked):
    # whether its splits depend on the model: on how that prepares its inputs, and what it calls its outputs
    reads_model: ClassVar[bool] = False
    labelled: ClassVar[bool] = False  # whether its examples say what models are to answer

    def judged_pairs(self) -> list[str]:
        """Names of the sets of judged pairs that the test is about."""
        return []

    def retrieval_splits(self) -> list[str]:
        """Names of the splits that have queries with passages, among them those of test."""
        return []

    def domains(self) -> list[str]:
        """Names of the parts of the test that a language model is evaluated on, each apart."""
        return []


@dataclass(kw_only=True)
class Retrieval(Checked):
    """Documents of the test corpus, in no other split, whose sentences ask for what follows them."""

    test: int = number(0, 0)
    select: int = number(0, 0)


@option(
    "data",
    "text",
    "compress.data.splits:open_splits",
    works_on=("text",),
)
@dataclass(kw_only=True)
class TextData(DataConfig):
    """Sentences for calibration, selection and test; passages for training; pairs for judging."""

    corpora: dict[str, TextFile] = MISSING
    pairs: dict[str, PairFile] = field(default_factory=dict)
    calibration: int = number(256, 1)
    train: int = number(0, 0)  # 0 takes all there is
    select: int = number(256, 1)
    test: int = number(500, 1)
    test_corpus: str = MISSING  # calibration, select and test sentences come from this corpus
    min_words: int = number(5, 1)
    max_words: int = number(128, 1)
    retrieval: Retrieval = field(default_factory=Retrieval)
    seed: int = random_seed()

    def __post_init__(self) -> None:
        super().__post_init__()
        Range(self.min_words).check("max_words", self.max_words)
        if self.test_corpus not in self.corpora:
            raise ConfigError(
                "test_corpus names no corpus",
                found=self.test_corpus,
                allowed=", ".join(self.corpora),
            )

    def judged_pairs(self) -> list[str]:
        return [name for name, file in self.pairs.items() if file.split is PairSplit.test]

    def retrieval_splits(self) -> list[str]:
        return [name for name in ("test", "select") if getattr(self.retrieval, name)]

    def domains(self) -> list[str]:
        return ["text"]


@option(
    "data",
    "documents",
    "compress.data.documents:open_documents",
    works_on=("text",),
)
@dataclass(kw_only=True)
class Documents(DataConfig):
    """Whole documents for language models: each goes to one split, by corpus as many as are named."""

    corpora: dict[str, TextFile] = MISSING
    # Corpus -> documents. A corpus of test is a domain of the evaluation, the first is its primary one.
    test: dict[str, int] = MISSING
    select: dict[str, int] = MISSING
    calibration: dict[str, int] = MISSING
    train: list[str] = field(default_factory=list)  # corpora whose other documents are trained on, in full
    min_words: int = number(40, 1)  # of a document; shorter ones are left out
    # of one for calibration, select and test: longer ones end with a paragraph before
    max_words: int = number(400, 1)
    seed: int = random_seed()

    def __post_init__(self) -> None:
        super().__post_init__()
        Range(self.min_words).check("max_words", self.max_words)
        for name in ("test", "select", "calibration", "train"):
            chosen = getattr(self, name)
            if name != "train" and not chosen:
                raise ConfigError(
                    f"{name} names no corpus", found="{}", allowed="corpus: number of documents"
                )
            for corpus in chosen:
                if corpus not in self.corpora:
                    raise ConfigError(
                        f"{name} names no corpus", found=corpus, allowed=", ".join(self.corpora)
                    )
                least = {"train": None, "calibration": 1}.get(name, 2)  # an interval needs two
                if least is not None and chosen[corpus] < least:
                    raise ConfigError(
                        f"{name}.{corpus} is out of range", found=chosen[corpus], allowed=f"at least {least}"
                    )

    def domains(self) -> list[str]:
        return list(self.test)


# ---------------------------------------------------------------- images


class ImageFormat(Enum):
    folder = "folder"  # a folder a class, of pictures that Pillow reads
    idx = "idx"  # the two files of MNIST and its kin, plain or gzip
    parquet = "parquet"  # a column of encoded images and one of labels: data sets of the Hugging Face hub


@dataclass(kw_only=True)
class ImageSet:
    """Labelled images."""

    source: str = MISSING
    sha256: str | None = None
    format: ImageFormat = ImageFormat.folder
    # Within the source: name patterns, * for any text. For idx one file of images and one of labels.
    images: str = "*"
    labels: str = "*"
    image_column: str = "image"  # of parquet, as the next
    label_column: str = "label"


class Interpolation(Enum):
    nearest = "nearest"
    lanczos = "lanczos"
    bilinear = "bilinear"
    bicubic = "bicubic"


@dataclass(kw_only=True)
class Resize(Checked):
    """The shorter side to size / crop, then the square in the middle, as torchvision and timm evaluate."""

    # pixels a side of what comes out; 0: as the model's own preprocessing does it
    size: int = number(0, 0, 4096)
    # share of the shorter side that the square keeps; models of 224 often have 0.875
    crop: float = positive(1.0, 1.0)
    interpolation: Interpolation = Interpolation.bilinear


@option("data", "images", "compress.data.images:open_images", works_on=("image_classification",))
@dataclass(kw_only=True)
class ImageData(DataConfig):
    """Labelled images; calibration, select and train are cut from one set, test is the other as a whole."""

    reads_model: ClassVar[bool] = True

    train_set: ImageSet = field(default_factory=ImageSet)
    test_set: ImageSet = field(default_factory=ImageSet)
    resize: Resize = field(default_factory=Resize)
    # names by label of files that have none, else of the model's outputs in their order
    classes: list[str] = field(default_factory=list)
    calibration: int = number(512, 1)
    select: int = number(5000, 1)
    train: int = number(0, 0)  # 0 takes all there is
    test: int = number(0, 0)  # likewise
    seed: int = random_seed()
