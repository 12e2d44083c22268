"""How well a language model does: likelihood of held-out documents, and how near it is to the dense model."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.config.data import Split
from compress.config.evaluate import LanguageModeling, language_metrics
from compress.data import TextSplit, load_texts
from compress.errors import ConfigError, DataError, ModelError, did_you_mean
from compress.evaluate.dense_states import load_states, save_states
from compress.evaluate.generation import beginning, continuations, repeated, shared_prefix
from compress.evaluate.language_quality import (
    Domain,
    arrays,
    compare,
    joined,
    judge,
    likelihoods,
)
from compress.evaluate.quality import Dense, save_quality
from compress.evaluate.windows import common_places, cut, read_row, same_text
from compress.graph.decoder import Decoder
from compress.graph.gates import check_answers
from compress.models import read_facts
from compress.models.checkpoint import read_config
from compress.models.tokenizer import Tokenizer
from compress.schema.report import Continuation, LanguageDomain

_CONTINUED = "continuations.json"  # of the dense model: numbers of tokens, prompt by prompt


def score(
    config: LanguageModeling,
    graph: Path,
    checkpoint: Path,
    splits_folder: Path,
    out: Path,
    split: Split,
    samples: int | None,
) -> None:
    """Write to `out` what the dense model says, for all that are compared with it: its last hidden states in
    every window (`DenseStates`), and on TEST how it continues beginnings of documents.

    Raises DataError for too little text, ModelError for windows longer than the model's and for graphs of
    another kind.
    """
    limit = _limit(config, checkpoint)
    tokenizer, texts = Tokenizer(checkpoint), by_domain(_held_out(splits_folder, split), samples)
    rows = [read_row(tokenizer, first(tokenizer, each, config.tokens, name)) for name, each in texts.items()]
    windows = [
        row.ids[window.start : window.stop]
        for row in rows
        for window in cut(len(row.ids), config.context, config.stride)
    ]
    save_states(graph / "model.onnx", windows, out)
    prompts = [tokenizer.plain(prompt) for _, prompt in _prompts(config, tokenizer, texts, limit, split)]
    continued = continuations(
        graph / "model.onnx", prompts, config.new_tokens, _stop_tokens(checkpoint), False
    )
    (out / _CONTINUED).write_text(json.dumps(continued))


def evaluate(
    config: LanguageModeling,
    dense: Dense,
    graph: Path,
    student: Path,
    splits_folder: Path,
    out: Path,
    split: Split,
    samples: int | None,
) -> None:
    """Compare one model with the dense one on held-out documents.

    `student` is the checkpoint of `graph`, which may have fewer tokens (`Facts.kept_tokens`); it then reads
    the same text window by window. Writes `quality.json` (see `load_quality`) and `scores.npz` (a row a
    token) to the folder `out`. Quality is bits per byte and, where both have the same tokens, perplexity, of
    each corpus; fidelity is KL(dense || model) in nats and how often both think the same next token the
    likeliest, among the tokens that the model has. All intervals are clustered by document. On TEST both
    also continue beginnings of documents. `samples` limits the documents, evenly spread.

    Raises ConfigError for a primary metric that does not exist, DataError for too little text, ModelError
    for windows longer than the model's and for graphs of another kind, GateError for broken logits.
    """
    texts = by_domain(_held_out(splits_folder, split), samples)
    primary = _primary(
        config.primary, list(by_domain(_held_out(splits_folder, Split.test), None)), list(texts)
    )
    pair = _Pair(config, dense, graph, student, _limit(config, dense.checkpoint, student))
    scored = pair.score(texts)
    found = judge(config, primary, scored, pair.continuations(texts, split))
    np.savez(out / "scores.npz", allow_pickle=False, **arrays(scored))
    save_quality(found, out)


def _held_out(splits_folder: Path, split: Split) -> TextSplit:
    splits = load_texts(splits_folder)
    return splits.test if split is Split.test else splits.select


def _limit(config: LanguageModeling, *checkpoints: Path) -> int:
    """Tokens of the longest window that all of them have; raises ModelError where the configuration's is
    longer."""
    limit = min(map(_longest, checkpoints))
    if config.context > limit:
        raise ModelError(
            "the windows are longer than the model's",
            found=f"evaluate.context={config.context}",
            allowed=f"at most {limit} tokens, max_position_embeddings of config.json",
            next=f"evaluate.context={limit} evaluate.stride={min(limit, config.stride)}",
        )
    return limit


class _Pair:
    """The dense model and the one beside it, on the same text."""

    def __init__(
        self, config: LanguageModeling, dense: Dense, graph: Path, student: Path, limit: int
    ) -> None:
        self.config, self.model, self.dense, self.limit = config, graph / "model.onnx", dense, limit
        self.is_dense = dense.is_in(graph)
        kept = read_facts(student).kept_tokens
        self.kept = None if kept is None else np.array(kept, np.int64)
        self.dense_tokenizer = Tokenizer(dense.checkpoint)
        self.tokenizer = self.dense_tokenizer if kept is None else Tokenizer(student)
        self.stop = _stop_tokens(student)

    def score(self, texts: dict[str, list[str]]) -> list[Domain]:
        """Both models on the documents of each domain."""
        config = self.config
        texts = {name: first(self.dense_tokenizer, each, config.tokens, name) for name, each in texts.items()}
        rows = {name: read_row(self.dense_tokenizer, each) for name, each in texts.items()}
        windows = {name: cut(len(row.ids), config.context, config.stride) for name, row in rows.items()}
        own_rows, own_windows = rows, windows
        if self.kept is not None:
            own_rows = {name: read_row(self.tokenizer, each) for name, each in texts.items()}
            own_windows = {
                name: same_text(windows[name], rows[name], own_rows[name], self.limit) for name in texts
            }
        dense = load_states(self.dense.graph / "model.onnx", self.dense.scores)
        longest = max(w.stop - w.start for name in texts for w in own_windows[name])
        decoder = None if self.is_dense else Decoder(self.model, capacity=longest)
        domains, number = [], 0
        for name in texts:
            before, after, compared = [], [], []
            for window, own in zip(windows[name], own_windows[name], strict=True):
                expected = dense.logits(number)
                number += 1
                got = expected
                if decoder is not None:
                    decoder.reset()
                    got = decoder.run(own_rows[name].ids[own.start : own.stop])
                    _check(got, len(expected[0]) if self.kept is None else len(self.kept), self.model.name)
                before.append(likelihoods(expected, rows[name], window))
                after.append(likelihoods(got, own_rows[name], own))
                places: Any = slice(window.scored - window.start, window.stop - window.start)
                asked, answered = expected[places.start - 1 : -1], got[places.start - 1 : -1]  # no copies
                if self.kept is not None:
                    places, own_places = common_places(rows[name], window, own_rows[name], own)
                    asked, answered = expected[places - 1], got[own_places - 1]
                kl, agree = compare(asked, answered, self.kept)
                documents = rows[name].documents[window.start : window.stop][places]
                compared.append((kl, agree, documents))
            facts = LanguageDomain(
                name=name,
                documents=len(texts[name]),
                tokens=len(own_rows[name].ids),
                bytes=int(own_rows[name].ends[-1]),
            )
            kl, agree, documents = (np.concatenate(each) for each in zip(*compared, strict=True))
            both = joined(before), joined(after)
            domains.append(Domain(name, *both, self.kept is None, kl, agree, documents, facts))
        return domains

    def continuations(self, texts: dict[str, list[str]], split: Split) -> tuple[Continuation, ...]:
        """Of beginnings of documents, of each domain in turn; of none where `split` is not TEST."""
        chosen = _prompts(self.config, self.dense_tokenizer, texts, self.limit, split)
        dense = small = json.loads((self.dense.scores / _CONTINUED).read_text())
        if not self.is_dense:
            own = [self.tokenizer.plain(prompt) for _, prompt in chosen]
            small = continuations(self.model, own, self.config.new_tokens, self.stop)
        return tuple(
            Continuation(
                domain=name,
                prompt=prompt,
                dense=self.dense_tokenizer.decode(before),
                variant=self.tokenizer.decode(after),
                tokens=max(len(before), len(after)),
                shared_tokens=shared_prefix(
                    before, after if self.kept is None else self.kept[after].tolist()
                ),
                dense_repeated=repeated(before),
                variant_repeated=repeated(after),
            )
            for (name, prompt), before, after in zip(chosen, dense, small, strict=True)
        )


def _prompts(
    config: LanguageModeling, tokenizer: Tokenizer, texts: dict[str, list[str]], limit: int, split: Split
) -> list[tuple[str, str]]:
    """Domain and beginning of each document that is continued, by the dense model's tokens."""
    if split is not Split.test or not config.prompts:
        return []
    if config.prompt_tokens + config.new_tokens > limit:
        raise ModelError(
            "prompt and continuation are longer than the model's windows",
            found=f"{config.prompt_tokens} + {config.new_tokens} tokens",
            allowed=f"at most {limit}",
            next="lower evaluate.prompt_tokens or evaluate.new_tokens",
        )
    names = [list(texts)[i % len(texts)] for i in range(config.prompts)]
    return [
        (name, beginning(tokenizer, texts[name][i // len(texts)], config.prompt_tokens))
        for i, name in enumerate(names)
        if i // len(texts) < len(texts[name])
    ]


# --- text ------------------------------------------------------------------------------------------------


def by_domain(split: TextSplit, samples: int | None) -> dict[str, list[str]]:
    """Corpus -> documents; of each an equal part of `samples`, at least 2, evenly spread."""
    domains = split.domains or ("text",) * len(split.texts)
    found: dict[str, list[str]] = {}
    for text, name in zip(split.texts, domains, strict=True):
        found.setdefault(name, []).append(text)
    if samples is None:
        return found
    count = max(2, -(-samples // max(1, len(found))))
    return {
        name: [texts[i * len(texts) // count] for i in range(count)] if count < len(texts) else texts
        for name, texts in found.items()
    }


def first(tokenizer: Tokenizer, texts: Sequence[str], tokens: int, name: str) -> list[str]:
    """As many whole documents as have at most `tokens` tokens; raises DataError where these are below 2."""
    kept: list[str] = []
    left = tokens
    for text in texts:
        left -= len(tokenizer.plain(text + "\n"))
        if left < 0:
            break
        kept.append(text)
    if len(kept) < 2:
        raise DataError(
            f"too little text of the domain {name!r}",
            found=f"{len(kept)} of {len(texts)} documents within {tokens} tokens",
            allowed="at least 2, for an interval",
            next="more documents of it in data.test and data.select, or raise evaluate.tokens",
        )
    return kept


def _longest(checkpoint: Path) -> int:
    return int(read_config(checkpoint).get("max_position_embeddings") or 2**31)


def _stop_tokens(checkpoint: Path) -> frozenset[int]:
    """Tokens that end a text, by generation_config.json and config.json."""
    found: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        path = checkpoint / name
        named = json.loads(path.read_text("utf-8")).get("eos_token_id") if path.is_file() else None
        found |= {named} if isinstance(named, int) else set(named or ())
    return frozenset(found)


def _check(logits: NDArray[np.float32], vocabulary: int, name: str) -> None:
    if logits.shape[1] != vocabulary:
        raise ModelError(
            f"{name} has another vocabulary than its checkpoint",
            found=f"{logits.shape[1]} tokens",
            allowed=str(vocabulary),
        )
    check_answers(logits, name, "logits", "token")


def _primary(wanted: str | None, tested: Sequence[str], here: Sequence[str]) -> str:
    """The metric that decides. Checked against those of TEST; on SELECT, where a domain may be missing, it is
    the same one of the first domain there."""
    known = language_metrics(tested)
    name = wanted or known[0]
    if name not in known:
        raise ConfigError("evaluate.primary names no metric", found=name, allowed=did_you_mean(name, known))
    if name in language_metrics(here):
        return name
    kind = next(kind for kind in ("bits_per_byte", "perplexity") if name.startswith(kind))
    return f"{kind}_{here[0]}"
