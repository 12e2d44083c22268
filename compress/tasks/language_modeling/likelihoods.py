"""From logits to likelihoods, and from these to every metric of a language model."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.config.evaluate import LanguageModeling
from compress.errors import ConfigError
from compress.metrics.quality import Quality
from compress.metrics.statistics import mean_interval, paired_mean_drop, paired_ratio_drop, ratio_interval
from compress.schema.details import Continuation, LanguageDetails, LanguageDomain
from compress.schema.estimates import Estimate, Score
from compress.tasks.language_modeling.windows import Ints, Row, Window

Floats = NDArray[np.float64]
_ROWS = 64  # of logits at once
_NUMBERS, _DESCRIBED = "likelihoods.npz", "domains.json"


@dataclass(frozen=True)
class Likelihoods:
    """Of one model on one domain, an entry a scored token: three arrays [tokens]."""

    nll: Floats  # nats
    bytes: Ints
    documents: Ints


@dataclass(frozen=True)
class Domain:
    """Documents of one corpus, as one model answers beside the dense one."""

    facts: LanguageDomain
    same_tokens: bool  # so that a perplexity of one compares with that of the other
    own: Likelihoods
    # At each place of the text where both models are asked for the next token: three arrays [places].
    kl: Floats
    agree: NDArray[np.bool_]
    documents: Ints


@dataclass(frozen=True)
class Written:
    """How a model continues the beginning of a document."""

    domain: str
    prompt: str
    tokens: list[int]  # by the dense model's numbers
    text: str


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


def divergences(
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
    dense: Sequence[Domain],
    small: Sequence[Domain],
    continuations: tuple[Continuation, ...] = (),
) -> Quality:
    """From the likelihoods of both models to every metric. Pure; raises ConfigError for a primary metric that
    the models do not share."""
    draws: dict[str, Any] = {"resamples": config.resamples, "seed": config.seed}
    quality: dict[str, Score] = {}
    drops: dict[str, Estimate] = {}
    for old, new in zip(dense, small, strict=True):
        metric = f"bits_per_byte_{new.facts.name}"
        before, after = (_per_document(of.own) for of in (old, new))
        quality[metric] = ratio_interval(*after, n=len(new.own.nll), higher_is_better=False, **draws)
        drops[metric] = paired_ratio_drop(before, after, higher_is_better=False, **draws)
        if new.same_tokens:
            metric = f"perplexity_{new.facts.name}"
            quality[metric], drops[metric] = _perplexity(old.own, new.own, draws)
    kl, agree = (
        np.concatenate([np.asarray(getattr(domain, name), np.float64) for domain in small])
        for name in ("kl", "agree")
    )
    documents = np.concatenate([domain.documents + 1_000_000 * i for i, domain in enumerate(small)])
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
            next=f"evaluate.primary=bits_per_byte_{small[0].facts.name}",
        )
    return Quality(
        primary=primary,
        quality=quality,
        fidelity=fidelity,
        drop_from_dense=drops,
        language=LanguageDetails(
            context=config.context,
            stride=config.stride,
            domains=tuple(domain.facts for domain in small),
            compared_share=len(kl) / sum(len(domain.own.nll) for domain in dense),
            continuations=continuations,
        ),
    )


def _perplexity(dense: Likelihoods, small: Likelihoods, draws: dict[str, int]) -> tuple[Score, Estimate]:
    """Exponentials of the mean likelihood and of its ends, and of those of the paired difference."""
    mean = mean_interval(small.nll, small.documents, higher_is_better=False, **draws)
    drop = paired_mean_drop(dense.nll, small.nll, small.documents, higher_is_better=False, **draws)
    low, high = (float(np.exp(end)) for end in mean.ci95)
    scale = float(np.exp(dense.nll.mean()))
    ends = (scale * float(np.expm1(drop.ci95[0])), scale * float(np.expm1(drop.ci95[1])))
    return (
        Score(value=float(np.exp(mean.value)), ci95=(low, high), n=mean.n, higher_is_better=False),
        Estimate(value=scale * float(np.expm1(drop.value)), ci95=ends),
    )


def _per_document(own: Likelihoods) -> tuple[Floats, Floats]:
    """Bits and bytes of each document."""
    bits = np.bincount(own.documents, own.nll) / np.log(2)
    return bits, np.bincount(own.documents, own.bytes).astype(np.float64)


def arrays(dense: Sequence[Domain], small: Sequence[Domain]) -> dict[str, Any]:
    """What scores.npz holds."""
    of_domains: dict[str, Any] = {}
    for old, new in zip(dense, small, strict=True):
        name = new.facts.name
        for which, own in (("dense", old.own), ("small", new.own)):
            of_domains |= {f"{name}_{which}_{field}": values for field, values in vars(own).items()}
        of_domains |= {f"{name}_{field}": getattr(new, field) for field in ("kl", "agree", "documents")}
    return of_domains


# --- stored ----------------------------------------------------------------------------------------------


def save_scores(domains: Sequence[Domain], written: Sequence[Written], out: Path) -> None:
    """Write what `score` says of one model."""
    numbers = {
        f"{i}_{field}": values
        for i, domain in enumerate(domains)
        for field, values in {**vars(domain), **{f"own_{k}": v for k, v in vars(domain.own).items()}}.items()
        if isinstance(values, np.ndarray)
    }
    np.savez(out / _NUMBERS, allow_pickle=False, **numbers)
    described = {
        "domains": [[asdict(domain.facts), domain.same_tokens] for domain in domains],
        "written": [asdict(text) for text in written],
    }
    (out / _DESCRIBED).write_text(json.dumps(described))


def load_scores(folder: Path) -> tuple[list[Domain], list[Written]]:
    """Read what `save_scores` wrote."""
    described = json.loads((folder / _DESCRIBED).read_text())
    with np.load(folder / _NUMBERS, allow_pickle=False) as stored:
        domains = [
            Domain(
                LanguageDomain(**facts),
                same_tokens,
                Likelihoods(*(stored[f"{i}_own_{field}"] for field in ("nll", "bytes", "documents"))),
                *(stored[f"{i}_{field}"] for field in ("kl", "agree", "documents")),
            )
            for i, (facts, same_tokens) in enumerate(described["domains"])
        ]
    return domains, [Written(**text) for text in described["written"]]
