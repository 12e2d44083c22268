"""From logits to likelihoods, and from these to every metric of a language model. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.config.evaluate import LanguageModeling
from compress.errors import ConfigError
from compress.evaluate.quality import Quality
from compress.evaluate.statistics import mean_interval, paired_mean_drop, paired_ratio_drop, ratio_interval
from compress.evaluate.windows import Ints, Row, Window
from compress.schema.report import Continuation, Estimate, LanguageDetails, LanguageDomain, Score

Floats = NDArray[np.float64]
_ROWS = 64  # of logits at once


@dataclass(frozen=True)
class Likelihoods:
    """Of one model on one domain, an entry a scored token: three arrays [tokens]."""

    nll: Floats  # nats
    bytes: Ints
    documents: Ints


@dataclass(frozen=True)
class Domain:
    name: str
    dense: Likelihoods
    small: Likelihoods
    same_tokens: bool  # so that a perplexity of one compares with that of the other
    # At each place of the text where both models are asked for the next token: three arrays [places].
    kl: Floats
    agree: NDArray[np.bool_]
    documents: Ints
    facts: LanguageDomain


def likelihoods(logits: NDArray[np.float32], row: Row, window: Window) -> Likelihoods:
    """Of the scored tokens of a window, by its `logits` [tokens of the window, vocabulary]."""
    places = np.arange(window.scored, window.stop)
    targets = row.ids[places]
    before = logits[window.scored - window.start - 1 : window.stop - window.start - 1]
    nll = np.empty(len(places))
    for start in range(0, len(places), _ROWS):
        part = slice(start, start + _ROWS)
        rows = log_softmax(before[part])
        nll[part] = -rows[np.arange(len(rows)), targets[part]]
    return Likelihoods(nll, row.bytes[places], row.documents[places])


def compare(
    dense: NDArray[np.float32], small: NDArray[np.float32], kept: Ints | None
) -> tuple[Floats, NDArray[np.bool_]]:
    """KL(dense || small) in nats, and whether both are the highest at the same token, for each row of logits.

    `kept` [vocabulary of small]: the token of the dense model that each is; the others have no part in it.
    """
    kl, agree = np.empty(len(dense)), np.empty(len(dense), bool)
    for start in range(0, len(dense), _ROWS):
        part = slice(start, start + _ROWS)
        expected = dense[part] if kept is None else dense[part][:, kept]
        before, after = log_softmax(expected), log_softmax(small[part])
        kl[part] = (np.exp(before) * (before - after)).sum(1, dtype=np.float64)
        agree[part] = before.argmax(1) == after.argmax(1)
    return kl, agree


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """In float32, as the logits are: their own rounding is larger, and float64 takes six times as long."""
    import torch  # not loaded by a run that reuses every stage

    found: NDArray[np.float32] = torch.log_softmax(torch.from_numpy(logits), -1).numpy()
    return found


def joined(parts: Sequence[Likelihoods]) -> Likelihoods:
    return Likelihoods(
        np.concatenate([each.nll for each in parts]),
        np.concatenate([each.bytes for each in parts]),
        np.concatenate([each.documents for each in parts]),
    )


# --- judgement -------------------------------------------------------------------------------------------


def judge(
    config: LanguageModeling,
    primary: str,
    domains: Sequence[Domain],
    continuations: tuple[Continuation, ...] = (),
) -> Quality:
    """From the likelihoods of both models to every metric. Pure; raises ConfigError for a primary metric that
    the models do not share."""
    draws: dict[str, Any] = {"resamples": config.resamples, "seed": config.seed}
    quality: dict[str, Score] = {}
    drops: dict[str, Estimate] = {}
    for domain in domains:
        metric = f"bits_per_byte_{domain.name}"
        before, after = (_per_document(each) for each in (domain.dense, domain.small))
        quality[metric] = ratio_interval(*after, n=len(domain.small.nll), higher_is_better=False, **draws)
        drops[metric] = paired_ratio_drop(before, after, higher_is_better=False, **draws)
        if domain.same_tokens:
            metric = f"perplexity_{domain.name}"
            quality[metric], drops[metric] = _perplexity(domain, draws)
    kl, agree = (
        np.concatenate([np.asarray(getattr(each, name), np.float64) for each in domains])
        for name in ("kl", "agree")
    )
    documents = np.concatenate([each.documents + 1_000_000 * i for i, each in enumerate(domains)])
    fidelity = {
        "kl": mean_interval(kl, documents, higher_is_better=False, **draws),
        "top1_agreement": mean_interval(agree, documents, **draws),
    }
    drops["kl"] = paired_mean_drop(np.zeros_like(kl), kl, documents, higher_is_better=False, **draws)
    drops["top1_agreement"] = paired_mean_drop(np.ones_like(agree), agree, documents, **draws)
    if primary not in drops:
        raise ConfigError(
            "evaluate.primary cannot be compared between models of different tokens",
            found=primary,
            allowed=", ".join(drops),
            next=f"evaluate.primary=bits_per_byte_{domains[0].name}",
        )
    return Quality(
        primary=primary,
        quality=quality,
        fidelity=fidelity,
        drop_from_dense=drops,
        language=LanguageDetails(
            context=config.context,
            stride=config.stride,
            domains=tuple(domain.facts for domain in domains),
            compared_share=len(kl) / sum(len(domain.dense.nll) for domain in domains),
            continuations=continuations,
        ),
    )


def _perplexity(domain: Domain, draws: dict[str, int]) -> tuple[Score, Estimate]:
    """Exponentials of the mean likelihood and of its ends, and of those of the paired difference."""
    dense, small = domain.dense, domain.small
    mean = mean_interval(small.nll, small.documents, higher_is_better=False, **draws)
    drop = paired_mean_drop(dense.nll, small.nll, small.documents, higher_is_better=False, **draws)
    low, high = (float(np.exp(end)) for end in mean.ci95)
    scale = float(np.exp(dense.nll.mean()))
    ends = (scale * float(np.expm1(drop.ci95[0])), scale * float(np.expm1(drop.ci95[1])))
    return (
        Score(value=float(np.exp(mean.value)), ci95=(low, high), n=mean.n, higher_is_better=False),
        Estimate(value=scale * float(np.expm1(drop.value)), ci95=ends),
    )


def _per_document(found: Likelihoods) -> tuple[Floats, Floats]:
    """Bits and bytes of each document."""
    bits = np.bincount(found.documents, found.nll) / np.log(2)
    return bits, np.bincount(found.documents, found.bytes).astype(np.float64)


def arrays(domains: Sequence[Domain]) -> dict[str, Any]:
    """What scores.npz holds."""
    found: dict[str, Any] = {}
    for domain in domains:
        for name, each in (("dense", domain.dense), ("small", domain.small)):
            found[f"{domain.name}_{name}_nll"] = each.nll
            found[f"{domain.name}_{name}_bytes"] = each.bytes
            found[f"{domain.name}_{name}_documents"] = each.documents
        found[f"{domain.name}_kl"], found[f"{domain.name}_agree"] = domain.kl, domain.agree
        found[f"{domain.name}_documents"] = domain.documents
    return found
