"""How well a language model does: likelihood of held-out documents, and how near it is to the dense model."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from compress.config.data import Split
from compress.config.evaluate import LanguageModeling, language_metrics
from compress.data import HeldOut, TextSplit
from compress.errors import ConfigError, DataError, ModelError, did_you_mean
from compress.graph import graph_path
from compress.graph.decoder import KEEP, Decoder
from compress.graph.gates import check_answers
from compress.graph.pieces import link_weights
from compress.metrics.quality import Outputs, Quality, Scored
from compress.metrics.statistics import spread
from compress.models.checkpoint import read_config, read_facts
from compress.models.lengths import check_window, context_of
from compress.models.tokenizer import Tokenizer
from compress.schema.details import Continuation, LanguageDomain
from compress.tasks.language_modeling.dense_states import load_states, save_states
from compress.tasks.language_modeling.generation import beginning, continuations, repeated, shared_prefix
from compress.tasks.language_modeling.likelihoods import (
    Domain,
    Written,
    arrays,
    divergences,
    joined,
    judge,
    likelihoods,
    load_scores,
    save_scores,
)
from compress.tasks.language_modeling.windows import (
    Ints,
    Row,
    Window,
    common_places,
    cut,
    read_row,
    same_text,
)

Array = NDArray[np.float32]
LOGITS_BYTES = 2**28  # of windows that a target is asked for at once


def score(config: LanguageModeling, model: Scored, dense: Scored, held_out: HeldOut) -> None:
    """Write how likely one model finds each token of held-out documents, how far its answers are from the
    dense model's, and on TEST how it continues beginnings of documents.

    It may have fewer tokens (`Facts.kept_tokens`); it then reads the same text window by window. Of the
    dense model, for which `model` and `dense` are one, the last hidden states stay too (`DenseStates`). What
    it writes by itself it writes here, wherever its likelihoods are computed: token by token a target would
    load it anew.

    Raises DataError for too little text, ModelError for windows longer than the model's and for graphs of
    another kind, GateError for broken logits.
    """
    path, dense_path = (graph_path(of.graph) for of in (model, dense))
    limit = _limit(config, dense.checkpoint, model.checkpoint)
    kept_tokens = read_facts(model.checkpoint).kept_tokens
    kept = None if kept_tokens is None else np.array(kept_tokens, np.int64)
    dense_tokenizer = Tokenizer(dense.checkpoint)
    tokenizer = dense_tokenizer if kept is None else Tokenizer(model.checkpoint)
    texts = by_domain(held_out.part, held_out.samples)
    prompts = _prompts(config, dense_tokenizer, texts, limit, held_out.split)
    passages = [_passage(config, name, of, dense_tokenizer, tokenizer, limit) for name, of in texts.items()]
    if model is dense:
        save_states(path, [ids for passage in passages for ids in passage.ids()], dense.scores)
    states = load_states(dense_path, dense.scores)
    expected = (states.logits(number) for number in range(len(states.states)))
    wide = None if kept is None else len(kept)
    answer = None
    if model.there is not None:
        answer = _answers_there(path, passages, wide, model.there)
    elif model is not dense:
        answer = _answers(path, passages, wide)
    domains = [_domain(passage, expected, answer, kept) for passage in passages]
    del states, expected, answer  # before the model is opened to write
    continued = continuations(
        path,
        model.checkpoint,
        [tokenizer.plain(prompt) for _, prompt in prompts],
        config.new_tokens,
        prepack=model is not dense,
    )
    written = [
        Written(name, prompt, (tokens if kept is None else kept[tokens].tolist()), tokenizer.decode(tokens))
        for (name, prompt), tokens in zip(prompts, continued, strict=True)
    ]
    save_scores(domains, written, model.scores)


def compare(
    config: LanguageModeling, model: Scored, dense: Scored, held_out: HeldOut
) -> tuple[Quality, dict[str, Any]]:
    """Quality of what `score` wrote of a model beside what it wrote of the dense one, and scores by token.

    Quality is bits per byte and, where both have the same tokens, perplexity, of each corpus; fidelity is
    KL(dense || model) in nats and how often both think the same next token the likeliest, among the tokens
    that the model has. All intervals are clustered by document.

    Raises ConfigError for a primary metric that does not exist.
    """
    (before, dense_written), (after, written) = (load_scores(of.scores) for of in (dense, model))
    tested = list(by_domain(held_out.splits.test, None))
    primary = _primary(config.primary, tested, [domain.facts.name for domain in after])
    continued = tuple(
        Continuation(
            domain=old.domain,
            prompt=old.prompt,
            dense=old.text,
            variant=new.text,
            tokens=max(len(old.tokens), len(new.tokens)),
            shared_tokens=shared_prefix(old.tokens, new.tokens),
            dense_repeated=repeated(old.tokens),
            variant_repeated=repeated(new.tokens),
        )
        for old, new in zip(dense_written, written, strict=True)
    )
    return judge(config, primary, before, after, continued), arrays(before, after)


def _limit(config: LanguageModeling, *checkpoints: Path) -> int:
    """Tokens of the longest window that all of them have; raises ModelError where the configuration's is
    longer."""
    limit = min(context_of(read_config(checkpoint)) for checkpoint in checkpoints)
    check_window("evaluate.context", config.context, config.stride, limit)
    return limit


@dataclass(frozen=True)
class _Passage:
    """Documents of one domain as the dense model and another read them: window by window the same text."""

    facts: LanguageDomain  # as the other reads them
    dense_row: Row
    dense_windows: list[Window]
    row: Row
    windows: list[Window]

    def ids(self) -> Iterator[Ints]:
        return (self.row.ids[window.start : window.stop] for window in self.windows)


def _passage(
    config: LanguageModeling,
    name: str,
    texts: list[str],
    dense_tokenizer: Tokenizer,
    tokenizer: Tokenizer,
    limit: int,
) -> _Passage:
    texts = first(dense_tokenizer, texts, config.tokens, name)
    row = dense_row = read_row(dense_tokenizer, texts)
    windows = dense_windows = cut(len(row.ids), config.context, config.stride)
    if tokenizer is not dense_tokenizer:
        row = read_row(tokenizer, texts)
        windows = same_text(windows, dense_row, row, limit)
    facts = LanguageDomain(name=name, documents=len(texts), tokens=len(row.ids), bytes=int(row.ends[-1]))
    return _Passage(facts, dense_row, dense_windows, row, windows)


def _answers(path: Path, passages: Sequence[_Passage], tokens: int | None) -> Callable[[Ints, int], Array]:
    """The logits of a model for a window, of `tokens` tokens or, for None, of as many as are expected."""
    decoder = Decoder(path, capacity=max(len(ids) for passage in passages for ids in passage.ids()))

    def answer(ids: Ints, expected: int) -> Array:
        decoder.reset()
        logits = decoder.run(ids)
        _check(logits, tokens or expected, path.name)
        return logits

    return answer


def _answers_there(
    path: Path, passages: Sequence[_Passage], tokens: int | None, there: Outputs
) -> Callable[[Ints, int], Array]:
    """The same by what runs the graph elsewhere: it is asked for as many windows as `LOGITS_BYTES` allow."""
    proto = onnx.load(path, load_external_data=False).graph
    constants = {tensor.name for tensor in proto.initializer}
    inputs = [value for value in proto.input if value.name not in constants]
    windows = [ids for passage in passages for ids in passage.ids()]

    def given(expected: int) -> Iterator[Array]:
        with tempfile.TemporaryDirectory() as folder:
            yield from asked(with_all_logits(path, Path(folder)), expected)

    def asked(path: Path, expected: int) -> Iterator[Array]:
        at_once = max(1, LOGITS_BYTES // (4 * (tokens or expected) * max(map(len, windows))))
        for start in range(0, len(windows), at_once):
            feeds = [_window_feeds(inputs, ids) for ids in windows[start : start + at_once]]
            yield from (each["logits"][0] for each in there(path, feeds))

    logits: list[Iterator[Array]] = []

    def answer(ids: Ints, expected: int) -> Array:
        if not logits:
            logits.append(given(expected))
        found = next(logits[0])
        _check(found, tokens or expected, path.name)
        return found

    return answer


def with_all_logits(path: Path, folder: Path) -> Path:
    """The same graph, or a copy in `folder` that gives the logits of every token where it gives the last's
    unless it is told otherwise, which not every runtime can be."""
    model = onnx.load(path, load_external_data=False)
    kept = [tensor for tensor in model.graph.initializer if tensor.name == KEEP]
    if not kept:
        return path
    for tensor in kept:
        every = np.full(tuple(tensor.dims), 2**30, onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
        tensor.CopyFrom(onnx.numpy_helper.from_array(every, KEEP))
    link_weights(path, folder)
    onnx.save(model, folder / path.name)
    return folder / path.name


def _window_feeds(inputs: Sequence[onnx.ValueInfoProto], ids: Ints) -> dict[str, NDArray[Any]]:
    """Of a window of tokens without a past."""
    of_tokens = {
        "input_ids": ids[None],
        "attention_mask": np.ones((1, len(ids)), np.int64),
        "position_ids": np.arange(len(ids), dtype=np.int64)[None],
    }
    feeds: dict[str, NDArray[Any]] = {}
    for value in inputs:
        tensor = value.type.tensor_type
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if value.name in of_tokens:
            feeds[value.name] = of_tokens[value.name].astype(kind)
        else:
            _, heads, _, size = (dim.dim_value for dim in tensor.shape.dim)
            feeds[value.name] = np.zeros((1, heads, 0, size), kind)
    return feeds


def _domain(
    passage: _Passage,
    expected: Iterator[Array],
    answer: Callable[[Ints, int], Array] | None,
    kept: Ints | None,
) -> Domain:
    """One model, by the next of the dense model's logits: the dense one itself where there is no `answer`."""
    scored, compared = [], []
    for old, new, ids in zip(passage.dense_windows, passage.windows, passage.ids(), strict=True):
        before = after = next(expected)
        if answer is not None:
            after = answer(ids, len(before[0]))
        scored.append(likelihoods(after, passage.row, new))
        places: Any = slice(old.scored - old.start, old.stop - old.start)
        asked, answered = before[places.start - 1 : -1], after[places.start - 1 : -1]  # no copies
        if kept is not None:
            places, own_places = common_places(passage.dense_row, old, passage.row, new)
            asked, answered = before[places - 1], after[own_places - 1]
        documents = passage.dense_row.documents[old.start : old.stop][places]
        compared.append((*divergences(asked, answered, kept), documents))
    kl, agree, documents = (np.concatenate(parts) for parts in zip(*compared, strict=True))
    return Domain(passage.facts, kept is None, joined(scored), kl, agree, documents)


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
    texts_of: dict[str, list[str]] = {}
    for text, name in zip(split.texts, domains, strict=True):
        texts_of.setdefault(name, []).append(text)
    count = None if samples is None else max(2, -(-samples // max(1, len(texts_of))))
    return {name: [texts[row] for row in spread(len(texts), count)] for name, texts in texts_of.items()}


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
