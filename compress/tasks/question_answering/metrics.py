"""How well a model answers questions: against the answers that people gave, and against the dense model."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from compress.data import HeldOut
from compress.data.record import Record
from compress.graph import graph_path
from compress.graph.gates import check_answers
from compress.metrics.answers import exact_match, f1
from compress.metrics.quality import Quality, Scored
from compress.schema.details import ChangedText, TextDetails
from compress.tasks.question_answering.options import QuestionAnswering
from compress.tasks.question_answering.processor import Window, open_processor
from compress.tasks.text.answers import Answers, answers
from compress.tasks.text.comparison import Comparison, Example, brief, details, examples_of, groups_of

Floats = NDArray[np.float64]
_SCORES = "answers.npy"
NAMES = ("start_logits", "end_logits")


def score(config: QuestionAnswering, model: Scored, dense: Scored, held_out: HeldOut) -> None:
    """Write `answers.npy` [questions, 3]: where the best answer begins and ends in the context (letters), and
    its score. Each window is read alone. A question that no window answers better than its first token does,
    where the split has such questions, has an empty answer.

    Raises ModelError for another kind of graph and GateError for a model whose logits are broken.
    """
    path, processor = graph_path(model.graph), open_processor(dense.checkpoint)
    examples = examples_of(held_out)
    windows = processor.windows(examples)
    found = answers(path, processor, [[each.tokens] for each in windows], NAMES, there=model.there)
    best = best_answers(windows, found, len(examples), config.answer_tokens, unanswerable(examples))
    check_answers(best[:, 2], path.name, "score", "question")
    np.save(model.scores / _SCORES, best)


def unanswerable(examples: list[Example]) -> bool:
    """Whether some questions have no answer in their context, while others have."""
    given = [bool(each.answers) for each in examples if isinstance(each, Record) and each.pair is not None]
    return any(given) and not all(given)


def best_answers(
    windows: list[Window], found: list[Answers], questions: int, longest: int, may_be_none: bool
) -> Floats:
    """[questions, 3]: begin and end in the context, and score, of the best answer in all windows of each.

    An answer is at most `longest` tokens of the context in a row; its score is the sum of both logits. No
    answer scores as the first token does, by the least of the windows, as in the script of SQuAD 2.
    """
    best = np.tile([0.0, 0.0, -np.inf], (questions, 1))
    none = np.full(questions, np.inf)
    for window, given in zip(windows, found, strict=True):
        start, end = (given[name][0].astype(np.float64) for name in NAMES)
        none[window.example] = min(none[window.example], start[0] + end[0])
        places = [place for place, offset in enumerate(window.offsets) if offset is not None]
        if not places:
            continue
        low, high = places[0], places[-1] + 1
        sums = start[low:high, None] + end[None, low:high]
        allowed = np.triu(np.ones_like(sums)) - np.triu(np.ones_like(sums), longest)
        sums = np.where(allowed > 0, sums, -np.inf)
        first, last = np.unravel_index(sums.argmax(), sums.shape)
        if sums[first, last] > best[window.example, 2]:
            (begin, _), (_, end_of) = (window.offsets[low + place] or (0, 0) for place in (first, last))
            best[window.example] = begin, end_of, sums[first, last]
    empty = np.isneginf(best[:, 2]) | (may_be_none & (none >= best[:, 2]))
    best[empty] = np.stack([np.zeros(empty.sum()), np.zeros(empty.sum()), none[empty]], 1)
    return best


def compare(
    config: QuestionAnswering, model: Scored, dense: Scored, held_out: HeldOut
) -> tuple[Quality, dict[str, Any]]:
    """Quality of what `score` wrote of a model beside what it wrote of the dense one, and scores by question:
    where the answers of both begin and end, and their scores.

    Fidelity is the share of questions to which both give the same answer, and the difference of the scores
    beside the spread of the dense ones.
    """
    examples = examples_of(held_out)
    before, after = (np.load(of.scores / _SCORES) for of in (dense, model))
    found, groups = Comparison(config, np.array_equal(before, after)), groups_of(examples)
    found.nearness("agreement", (before[:, :2] == after[:, :2]).all(1).astype(float), groups, 1.0)
    spread = max(float(before[:, 2].std()), 1e-30)
    found.nearness("score_difference", np.abs(before[:, 2] - after[:, 2]) / spread, groups, 0.0)
    text = None
    if any(isinstance(each, Record) and each.answers for each in examples):
        text = _against_answers(found, [cast(Record, each) for each in examples], (before, after), groups)
    by_example = {"dense": before, "small": after}
    return found.result(config.primary, "f1", "agreement", text=text), by_example


def _against_answers(
    found: Comparison, questions: Sequence[Record], best: tuple[Floats, Floats], groups: NDArray[np.int64]
) -> TextDetails:
    """`best`: what `best_answers` gives, of both models."""
    given = [[text for _, text in each.answers] for each in questions]
    said = [
        [
            (each.pair or "")[int(begin) : int(end)]
            for each, (begin, end, _) in zip(questions, of, strict=True)
        ]
        for of in best
    ]
    both: list[Floats] = []
    for name, metric in {"f1": f1, "exact_match": exact_match}.items():
        values = [np.array([metric(*pair) for pair in zip(of, given, strict=True)]) for of in said]
        found.mean(name, values, groups)
        both = both or values

    def change(row: int) -> ChangedText:
        told = [" / ".join(given[row]), said[0][row], said[1][row]]
        expected, dense, small = (brief(each, 100) or "no answer" for each in told)
        text = brief(questions[row].text)
        return ChangedText(example=row, text=text, expected=expected, dense=dense, variant=small)

    return details(both, change)
