"""How far a head's answers are from labels, and from another model's answers."""

import torch
from torch import Tensor, nn

from compress.tasks.text.kind import UNKNOWN, Kind


def label_error(kind: Kind, answers: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over the texts with labels, of each the sum. `labels`: numbers (batch, ...) of classes, `UNKNOWN`
    where there is none, for answers (batch, ..., classes); else numbers as the answers are, NaN for none.
    `weights`: (classes), by which a class counts, or of several labels an example that has it."""
    if kind is Kind.classes:
        known = labels != UNKNOWN
        sums = nn.functional.cross_entropy(answers.flatten(0, -2), labels.flatten(), weights, reduction="sum")
    else:
        known = ~labels.isnan()
        wanted = labels.where(known, 0.0)
        if kind is Kind.values:
            each = (answers - wanted).square()
        else:
            each = nn.functional.binary_cross_entropy_with_logits(
                answers, wanted, pos_weight=weights, reduction="none"
            )
        sums = each.where(known, 0.0).sum()
    return sums / known.reshape(len(known), -1).any(1).sum().clamp(min=1)


def ranking_error(scores: Tensor, gains: Tensor, queries: Tensor) -> Tensor:
    """Mean over queries of the softmax loss (Bruch et al. 2019): the cross-entropy of the gains' shares and
    the softmax of the scores, each over the passages of a query. All are (pairs); NaN: an unknown gain.

    A pair without another of its query has a probability, its gain, where one above 1 counts as 1. Queries
    of several passages that none of them answers count for nothing.
    """
    errors = []
    known = ~gains.isnan()
    for query in torch.unique(queries[known]):
        rows = known & (queries == query)
        of_query, wanted = scores[rows], gains[rows].to(scores.dtype)
        if len(wanted) == 1:
            error = nn.functional.binary_cross_entropy_with_logits(of_query, wanted.clamp(0, 1))
        elif (total := wanted.sum()) > 0:
            error = nn.functional.cross_entropy(of_query, wanted / total)
        else:
            continue
        errors.append(error)
    return torch.stack(errors).mean() if errors else 0.0 * scores.sum()


def guesses(kind: Kind, answers: Tensor) -> Tensor:
    """Labels for texts without: what the model itself would say; of values zero, so that all matter."""
    if kind is Kind.classes:
        return answers.argmax(-1)
    return (answers > 0).to(answers.dtype) if kind is Kind.labels else torch.zeros_like(answers)


def distance(kind: Kind, answers: Tensor, dense: Tensor) -> Tensor:
    """(batch): the divergence KL(dense || answers) in nats, summed over labels or tokens, or of values the
    squared difference."""
    if kind is Kind.values:
        each = (answers - dense).square()
    elif kind is Kind.classes:
        given, wanted = (nn.functional.log_softmax(logits, -1) for logits in (answers, dense))
        each = nn.functional.kl_div(given, wanted, log_target=True, reduction="none")
    else:
        share = dense.sigmoid()
        each = nn.functional.binary_cross_entropy_with_logits(answers, share, reduction="none")
        each = each - nn.functional.binary_cross_entropy_with_logits(dense, share, reduction="none")
    return each.flatten(1).sum(1)
