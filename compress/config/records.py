"""Labelled text of one's own: its files, their columns, how it is cut into splits."""

from dataclasses import dataclass, field, fields
from enum import Enum
from typing import ClassVar

from omegaconf import MISSING

from compress.config.checks import number, random_seed
from compress.config.data import DataConfig
from compress.errors import ConfigError
from compress.registry import option


class RecordFormat(Enum):
    auto = "auto"  # by the name of the file
    jsonl = "jsonl"  # an object a line
    json = "json"  # one list of objects, or SQuAD's layout
    csv = "csv"
    tsv = "tsv"
    parquet = "parquet"
    arff = "arff"  # of Weka
    conll = "conll"  # a word a line with its tag, sentences parted by empty lines
    # A MediaWiki dump: its sentences with the words that are anchors of links, or its passages, asked for by
    # the sentence that leads each.
    wikipedia_mentions = "wikipedia_mentions"
    wikipedia_passages = "wikipedia_passages"


@dataclass(kw_only=True)
class RecordSet:
    """Files of examples."""

    source: str | None = None  # a file, or a folder in the layout of the hub
    sha256: str | None = None
    format: RecordFormat = RecordFormat.auto
    files: str | None = None  # within a folder: which, * for any text; null: those named by the split
    encoding: str = "utf-8"
    header: list[str] = field(default_factory=list)  # names of the columns of a table that has no header
    quotes: bool = True  # whether fields of a table are quoted as csv does it


@dataclass(kw_only=True)
class TrainingSet(RecordSet):
    source: str = MISSING


@dataclass(kw_only=True)
class Columns:
    """What the columns are called; null: as such columns usually are, where there is one."""

    text: str | None = None
    pair: str | None = None  # the text that is read with it
    label: str | None = None  # a name, a number, or a list of them
    words: str | None = None
    tags: str | None = None
    query: str | None = None
    positive: str | None = None  # a passage that answers the query, or a list of them
    negatives: str | None = None
    candidates: str | None = None  # passages, with their relevance
    relevance: str | None = None
    question: str | None = None
    context: str | None = None
    answers: str | None = None  # texts, or SQuAD's {"text": [...], "answer_start": [...]}
    start: str | None = None  # where the answer begins in the context, in characters


@option(
    "data",
    "records",
    "compress.data.records:open_records",
    works_on=("labelled_text",),
)
@dataclass(kw_only=True)
class RecordData(DataConfig):
    """Labelled text. What has no set of its own is cut from the training set; train is the rest of it."""

    reads_model: ClassVar[bool] = True
    labelled: ClassVar[bool] = True

    train_set: TrainingSet = field(default_factory=TrainingSet)
    select_set: RecordSet = field(default_factory=RecordSet)
    test_set: RecordSet = field(default_factory=RecordSet)
    columns: Columns = field(default_factory=Columns)
    group: str | None = None  # column of what stays in one split; null: texts all but equal
    classes: list[str] = field(default_factory=list)  # what the data calls the outputs, in their order
    label_separator: str | None = None  # of several labels in one field of a table
    # Below 1 a share, else a number. Null: of a set of its own all, else a fifth and at most 2,000.
    test: float | None = number(None, 0, above=True)
    select: float | None = number(None, 0, above=True)  # null: likewise, a tenth and at most 1,000
    calibration: float | None = number(None, 0, above=True)  # null: a tenth and at most 512
    train: int = number(100_000, 0)  # at most; 0 takes all there is, in memory
    candidates: int = number(32, 2, 1000)  # passages a query, where the data names none that do not answer it
    seed: int = random_seed()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("test", "select", "calibration"):
            asked = getattr(self, name)
            if asked is not None and asked > 1 and asked != int(asked):
                raise ConfigError(f"{name} is no number of examples", found=asked, allowed="0.2, or 500")

    def named(self) -> dict[str, str]:
        """Role -> column, of those that are named here."""
        given = {each.name: getattr(self.columns, each.name) for each in fields(self.columns)}
        return {role: column for role, column in given.items() if column is not None}
