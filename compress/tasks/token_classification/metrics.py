"""How well a tagger does: against the tags of words, and against the dense model."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.data import HeldOut
from compress.data.class_names import classes_of
from compress.data.record import Record
from compress.graph import graph_path
from compress.graph.gates import check_answers
from compress.metrics.classification import log_softmax
from compress.metrics.entities import entities, entity_counts, entity_f1
from compress.metrics.influence import paired_drop
from compress.metrics.quality import Quality, Scored
from compress.schema.details import ChangedText, PartScore, TextDetails
from compress.tasks.text.answers import answers
from compress.tasks.text.comparison import Comparison, Example, brief, details, examples_of, groups_of
from compress.tasks.token_classification.options import TokenClassification
from compress.tasks.token_classification.processor import NOWHERE, first_tokens, open_processor

Floats = NDArray[np.float64]
Tags = Sequence[Sequence[str]]  # of the words of each example
_SCORES, _OUTSIDE = "logits.npy", "O"
_SURE = 10.0  # logit of the tag of a word that the model does not see


def score(config: TokenClassification, model: Scored, dense: Scored, held_out: HeldOut) -> None:
    """Write `logits.npy` [words, tags] of the words of the examples of a split, one after the other; each
    example is read alone. A word that was cut off, or that has no token, is outside of entities.

    Raises ModelError for another kind of graph and GateError for a model whose logits are broken.
    """
    path, processor = graph_path(model.graph), open_processor(dense.checkpoint)
    names = classes_of(dense.checkpoint)
    examples = with_words(examples_of(held_out))
    encodings = processor.read(examples)
    rows = [[processor.tokens(each)] for each in encodings]
    found = answers(path, processor, rows, ["logits"], there=model.there)
    logits = np.zeros((sum(len(each.words) for each in examples), len(names)), np.float32)
    logits[:, names.index(_OUTSIDE) if _OUTSIDE in names else 0] = _SURE
    at = 0
    for example, encoding, answer in zip(examples, encodings, found, strict=True):
        for place in first_tokens(encoding, example.words):
            if place != NOWHERE:
                logits[at] = answer["logits"][0, place]
            at += 1
    check_answers(logits, path.name, "logits", "word")
    np.save(model.scores / _SCORES, logits)


def with_words(examples: Sequence[Example]) -> list[Record]:
    """Plain text has the words that spaces part."""
    records = (Record(text=each) if isinstance(each, str) else each for each in examples)
    return [
        each if each.words else Record(words=tuple(each.text.split()), group=each.group) for each in records
    ]


def compare(
    config: TokenClassification, model: Scored, dense: Scored, held_out: HeldOut
) -> tuple[Quality, dict[str, Any]]:
    """Quality of what `score` wrote of a model beside what it wrote of the dense one, and scores by word: the
    number of its example, its tag where it has one, the tag by both models.

    Fidelity is the share of words that both models tag alike, and the divergence KL(dense || model) (nats).
    """
    examples = with_words(examples_of(held_out))
    before, after = (np.load(of.scores / _SCORES).astype(np.float64) for of in (dense, model))
    of_example = np.repeat(np.arange(len(examples)), [len(each.words) for each in examples])
    groups = groups_of(examples)[of_example]
    said = [each.argmax(1) for each in (before, after)]
    found = Comparison(config, np.array_equal(before, after))
    found.nearness("agreement", (said[0] == said[1]).astype(float), groups, 1.0)
    first, second = log_softmax(before), log_softmax(after)
    found.nearness("kl", (np.exp(first) * (first - second)).sum(1), groups, 0.0)
    by_example: dict[str, Any] = {"examples": of_example, "dense": said[0], "small": said[1]}
    text = None
    if all(each.tags for each in examples):
        tags = by_example["tags"] = np.array([tag for each in examples for tag in each.tags])
        right = [(each == tags).astype(float) for each in said]
        found.mean("accuracy", right, groups)
        names, ends = classes_of(dense.checkpoint), np.cumsum([len(each.words) for each in examples])[:-1]
        tagged = [[[names[tag] for tag in of] for of in np.split(each, ends)] for each in (tags, *said)]
        text = _of_entities(found, examples, tagged)
    return found.result(config.primary, "entity_f1", "accuracy", "agreement", text=text), by_example


def _of_entities(found: Comparison, examples: Sequence[Record], tagged: Sequence[Tags]) -> TextDetails | None:
    """`tagged`: of every example, as people did it and as both models do. None where there is no entity."""
    truth, before, after = tagged
    kinds = sorted({kind for each in truth for kind, _, _ in entities(each)})
    if not kinds:
        return None
    groups, counts = groups_of(examples), [entity_counts(each, truth) for each in (before, after)]
    found.statistic("entity_f1", [entity_f1(each) for each in counts], groups)
    for name, column in (("entity_precision", 1), ("entity_recall", 2)):
        found.ratio(name, [(each[:, 0], each[:, column]) for each in counts], groups)

    def parts() -> Iterator[PartScore]:
        for kind in kinds:
            true, *of_both = ([_only(kind, each) for each in each_of] for each_of in tagged)
            of_kind = [entity_counts(each, true) for each in of_both]
            first, second = (entity_f1(each) for each in of_kind)
            number = int(of_kind[1][:, 2].sum())
            drop = paired_drop(first, second, groups)
            yield PartScore(name=kind, examples=number, value=second.value, drop=drop)

    def change(row: int) -> ChangedText:
        words = examples[row].words
        told = [_named(words, of[row]) for of in (truth, before, after)]
        text = brief(" ".join(words))
        return ChangedText(example=row, text=text, expected=told[0], dense=told[1], variant=told[2])

    right = [2 * each[:, 0] / np.maximum(1, each[:, 1] + each[:, 2]) for each in counts]
    return details(right, change, "F1", parts())


def _only(kind: str, tags: Sequence[str]) -> list[str]:
    """Tags of the entities of one kind."""
    kept = [_OUTSIDE] * len(tags)
    for found, first, last in entities(tags):
        if found == kind:
            kept[first : last + 1] = [f"B-{kind}", *[f"I-{kind}"] * (last - first)]
    return kept


def _named(words: Sequence[str], tags: Sequence[str]) -> str:
    found = (f"{' '.join(words[first : last + 1])} ({kind})" for kind, first, last in entities(tags))
    return brief(", ".join(found), 100) or "none"
