"""Pruning of language models: vocabulary, then width, then depth, each where it is asked for."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compress.config.prune import LanguagePrune, Scope
from compress.data import ImageSplits, load_splits
from compress.errors import DataError
from compress.models import load_causal_lm
from compress.models.causal_lm import CONTEXT, CausalLM
from compress.prune import depth
from compress.prune.gated_ffn import narrow, targets
from compress.prune.reload import check_reload
from compress.prune.tokens import bytes_per_token, cut_vocabulary
from compress.stages.result import write_result


def prune(config: LanguagePrune, checkpoint: Path, splits: Path, out: Path) -> None:
    """Cut, write the checkpoint and prove it.

    All that is counted and measured is so on the calibration and train texts. Raises ModelError for a
    tokenizer or heads that cannot be cut, ConfigError for a share or a vocabulary that leaves too little,
    GateError where stock transformers opens something else.
    """
    model = load_causal_lm(checkpoint)
    before = model.widths()
    targets(model, config)
    left = depth.layers_left(model, config)
    found = load_splits(splits)
    if isinstance(found, ImageSplits):
        raise DataError("language models are pruned by text", found="images", allowed="data of texts")
    calibration, train = found.calibration.texts, found.train.texts
    corpora = (*found.calibration.domains, *found.train.domains)
    with tempfile.TemporaryDirectory() as folder:
        summary = _vocabulary(model, config, (*calibration, *train), found.select.texts, Path(folder))
        windows = calibration_windows(model, (*calibration, *train), config.calibration_tokens, corpora)
        shorter = windows[: max(1, depth.TOKENS // windows.shape[1])]
        # Of the dense model, but for its vocabulary: what the layers that stay have to come near to.
        dense = depth.last_hidden(model, shorter) if left < len(before["ffn"]) else None
        if config.scope is not Scope["global"]:
            narrow(model, config, windows)
        dropped = depth.drop_layers(model, config, shorter, dense) if dense is not None else []
        if config.scope is Scope["global"]:  # one share of the layers that stay: the thinnest leave first
            narrow(model, config, windows)
        after = model.widths()
        summary |= {"before": before, "after": after, "dropped_layers": dropped}
        summary["calibration_tokens"] = windows.numel()
        kept = tuple(i for i in range(len(before["ffn"])) if i not in dropped) if dropped else None
        changes = {"kept_tokens": summary.pop("kept_tokens"), "kept_layers": kept}
        model.save(out, model.facts.after(_step(config, before, after), **changes))
    check_reload(model, out)
    write_result(out, facts={"pruning": summary})


def _vocabulary(
    model: CausalLM, config: LanguagePrune, texts: Sequence[str], held_out: Sequence[str], folder: Path
) -> dict[str, Any]:
    """Cut the vocabulary where it is asked for: what stage.json says of it, and the tokens kept."""
    if config.vocabulary is None:
        return {"kept_tokens": None}
    sets = {"counted": texts, "select": held_out}
    before = {name: bytes_per_token(model, each) for name, each in sets.items() if each}
    kept = cut_vocabulary(model, texts, config.vocabulary, folder)
    after = {name: bytes_per_token(model, each) for name, each in sets.items() if each}
    return {"kept_tokens": kept, "bytes_per_token": {"before": before, "after": after}}


def calibration_windows(
    model: CausalLM, texts: Sequence[str], tokens: int, corpora: Sequence[str] = ()
) -> Tensor:
    """About `tokens` of them, as windows of `CONTEXT` (or one shorter), spread evenly over `texts`.

    `corpora`: that of each text; all of them have the same part, as far as they have so much text, and take
    turns, so that the first windows are of all.
    """
    found: dict[str, list[int]] = {}
    for text, corpus in zip(texts, corpora or ("",) * len(texts), strict=True):
        ids = found.setdefault(corpus, [])
        if len(ids) < 4 * tokens:
            ids.extend(model.tokenize(text + "\n"))
    longest = max(map(len, found.values()), default=0)
    width = min(CONTEXT, longest)
    if width < 2:
        raise DataError("too little text to calibrate with", found=f"{longest} tokens", allowed="2 or more")
    windows = [
        torch.tensor(ids[: len(ids) // width * width], dtype=torch.int64).view(-1, width)
        for ids in found.values()
    ]
    left, chosen = max(1, tokens // width), []  # (how far into its corpus, window)
    for place, each in enumerate(sorted(windows, key=len)):  # what a small one lacks, the others give
        count = min(len(each), -(-left // (len(windows) - place)))
        left -= count
        rows = torch.linspace(0, max(0, len(each) - 1), count).round().long().tolist()
        chosen += [((number + 0.5) / count, each[row]) for number, row in enumerate(rows)]
    return torch.stack([window for _, window in sorted(chosen, key=lambda pair: pair[0])])


def _step(config: LanguagePrune, before: dict[str, Any], after: dict[str, Any]) -> str:
    parts = [
        f"{kind} {old[0]} to {_told(after[kind])}" for kind, old in before.items() if {*old} != {*after[kind]}
    ]
    if len(after["ffn"]) < len(before["ffn"]):
        parts.append(f"layers {len(before['ffn'])} to {len(after['ffn'])}")
    how = config.importance.value, config.scope.value, "least squares" if config.repair else "no repair"
    return f"pruned ({', '.join(how)}): {', '.join(parts) or 'nothing'}"


def _told(widths: Sequence[int]) -> str:
    """One number, or what they are between and on average."""
    low, high = min(widths), max(widths)
    return f"{low}" if low == high else f"{low}-{high} (mean {sum(widths) / len(widths):.0f})"
