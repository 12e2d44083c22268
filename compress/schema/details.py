"""What a report tells of the answers to test, beyond scores."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import AliasChoices, Field

from compress.schema.estimates import Estimate


@dataclass(frozen=True, kw_only=True)
class ClassDrop:
    """One class of a classifier, on the examples with its label."""

    name: str
    # named so by releases that knew images alone
    examples: Annotated[int, Field(validation_alias=AliasChoices("examples", "images"))]
    accuracy: float  # share, 0 to 1
    drop: Estimate  # of the accuracy, from dense


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """How many examples of one class are taken for another."""

    label: str
    answer: str
    dense: int
    variant: int


@dataclass(frozen=True, kw_only=True)
class ChangedAnswer:
    """An example of test to which this variant gives another answer than dense."""

    example: int  # its number in the split, from 0
    label: str
    dense: str
    dense_confidence: float  # of that answer, 0 to 1
    answer: str
    confidence: float
    png: str = ""  # base64, of an image
    text: str = ""  # its beginning


@dataclass(frozen=True, kw_only=True)
class MovedThreshold:
    """The probability from which on a text counts as of a class, by the highest F1 on every other example of
    test; what keeping dense's costs is by the examples between."""

    name: str  # of the class
    dense: float
    variant: float
    cost: float  # of F1 to this variant, of dense's threshold in place of its own


@dataclass(frozen=True, kw_only=True)
class ClassificationDetails:
    """What became of single classes and examples."""

    lost: int  # examples that dense gets right and this variant wrong
    gained: int  # the other way round
    mcnemar_p: float  # two-sided, exact: that both are equally accurate
    ece: float  # expected calibration error, 0 to 1
    per_class: tuple[ClassDrop, ...]  # the largest drop first
    confusions: tuple[Confusion, ...]  # the largest change first, at most ten
    changed: tuple[ChangedAnswer, ...] = ()  # at most twelve, of the variant that is kept
    thresholds: tuple[MovedThreshold, ...] = ()  # of a classifier of texts


@dataclass(frozen=True, kw_only=True)
class PartScore:
    """One label, or kind of entity, of a text model."""

    name: str
    examples: int  # that have it
    value: float
    drop: Estimate  # from dense


@dataclass(frozen=True, kw_only=True)
class ChangedText:
    """An example of test that this variant answers otherwise than dense."""

    example: int  # its number in the split, from 0
    text: str
    expected: str
    dense: str
    variant: str


@dataclass(frozen=True, kw_only=True)
class TextDetails:
    """What became of single labels and examples of a text model."""

    lost: int  # examples that dense answers better than this variant
    gained: int  # the other way round
    metric: str = ""  # of the parts
    parts: tuple[PartScore, ...] = ()  # the largest drop first
    thresholds: tuple[MovedThreshold, ...] = ()
    changed: tuple[ChangedText, ...] = ()  # at most twelve, of the variant that is kept


@dataclass(frozen=True, kw_only=True)
class LanguageDomain:
    """Held-out documents of one corpus, as this variant reads them."""

    name: str
    documents: int
    tokens: int  # by the variant's own tokenizer
    bytes: int  # of UTF-8 text


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """What two models write after the beginning of a test document, always taking the likeliest token."""

    domain: str
    prompt: str
    dense: str
    variant: str
    tokens: int  # of the longer one
    shared_tokens: int  # with which both begin
    dense_repeated: float  # share (0 to 1) of runs of 4 tokens that had occurred before in it
    variant_repeated: float


@dataclass(frozen=True, kw_only=True)
class LanguageDetails:
    """How a language model was read, and what it writes."""

    context: int  # tokens of a window, as the next
    stride: int
    domains: tuple[LanguageDomain, ...]
    compared_share: float  # of the places in the text, at which the dense model and this one were compared
    continuations: tuple[Continuation, ...] = ()
