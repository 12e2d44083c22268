"""What a language model is pruned by: windows of text, and how far its answers move."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from compress.config.prune import TransformerPrune
from compress.config.recover import Precision
from compress.data import load_texts
from compress.errors import DataError
from compress.models.device import computing
from compress.models.moments import Moments, observing, unseen
from compress.models.walk import Layered, Walk
from compress.tasks.calibration import Distances, Readers
from compress.tasks.language_modeling.model import CausalLM
from compress.tasks.language_modeling.processor import CONTEXT
from compress.training.precision import wants_bfloat16

SHORTLIST = 6  # layers whose divergence is measured, each time one goes
TOKENS = 8192  # of the calibration text, for it


@dataclass(frozen=True)
class Windows:
    """Tokens (windows, tokens), for language models: hidden states of all are held, moments of one layer."""

    model: CausalLM
    windows: Tensor

    @property
    def tokens(self) -> int:
        return self.windows.numel()

    def losses(self) -> Iterator[Tensor]:
        """-log p of tokens drawn from what the model itself expects at each place, so that no labels are
        needed."""
        random = torch.Generator().manual_seed(0)
        with computing(self.model.module) as device:
            for window in self.windows:
                short = wants_bfloat16(Precision.auto, device)
                with torch.autocast(device.type, torch.bfloat16, enabled=short):
                    logits = self.model.run({"input_ids": window[None].to(device)})[0].float()
                expected = logits.detach().softmax(-1).cpu()
                drawn = torch.multinomial(expected, 1, generator=random)[:, 0].to(device)
                yield nn.functional.cross_entropy(logits, drawn, reduction="sum")

    def moments(self, readers: Readers) -> Iterator[Mapping[nn.Linear, Moments]]:
        """Layer by layer, so that one may be cut when the next has read what the whole one gave."""
        walk = Walk(self.model, self.windows)
        for index, linears in enumerate(readers):
            moments = unseen(linears)
            with observing(moments, [None]):
                walk.advance(index)
            yield moments

    def distances(self) -> Distances:
        return answer_distances(self.model, self.windows)


def open_calibration(model: CausalLM, splits: Path, config: TransformerPrune) -> Windows:
    """Of the calibration split and, since it takes much text, of the train split."""
    texts = load_texts(splits)
    every = texts.calibration.texts + texts.train.texts
    corpora = texts.calibration.domains + texts.train.domains
    return Windows(model, calibration_windows(model, every, config.calibration_tokens, corpora))


def calibration_windows(
    model: CausalLM, texts: Sequence[str], tokens: int, corpora: Sequence[str] = ()
) -> Tensor:
    """About `tokens` of them, as windows of `CONTEXT` (or one shorter), spread evenly over `texts`.

    `corpora`: that of each text; all of them have the same part, as far as they have so much text, and take
    turns, so that the first windows are of all.
    """
    ids_of: dict[str, list[int]] = {}
    for text, corpus in zip(texts, corpora or ("",) * len(texts), strict=True):
        ids = ids_of.setdefault(corpus, [])
        if len(ids) < 4 * tokens:
            ids.extend(model.tokenize(text + "\n"))
    longest = max(map(len, ids_of.values()), default=0)
    width = min(CONTEXT, longest)
    if width < 2:
        raise DataError("too little text to calibrate with", found=f"{longest} tokens", allowed="2 or more")
    windows = [
        torch.tensor(ids[: len(ids) // width * width], dtype=torch.int64).view(-1, width)
        for ids in ids_of.values()
    ]
    left, chosen = max(1, tokens // width), []  # (how far into its corpus, window)
    for place, of_corpus in enumerate(sorted(windows, key=len)):  # what a small one lacks, the others give
        count = min(len(of_corpus), -(-left // (len(windows) - place)))
        left -= count
        rows = torch.linspace(0, max(0, len(of_corpus) - 1), count).round().long().tolist()
        chosen += [((number + 0.5) / count, of_corpus[row]) for number, row in enumerate(rows)]
    return torch.stack([window for _, window in sorted(chosen, key=lambda pair: pair[0])])


# --- distances -------------------------------------------------------------------------------------------


@torch.no_grad()
def answer_distances(model: Layered, windows: Tensor) -> Distances:
    """By the mean Kullback-Leibler divergence, in nats a token, from the dense language model's answers on
    `windows`; `model` is that as it is now.

    Block influence, 1 - the mean cosine of what enters and what leaves a layer (ShortGPT, Men et al. 2024),
    only says which layers are tried.
    """
    windows = windows[: max(1, TOKENS // windows.shape[1])]
    dense, walk = last_hidden(Walk(model, windows)), Walk(model, windows)

    @torch.no_grad()
    def distances(candidates: Sequence[int]) -> dict[int, float]:
        influence = block_influence(walk)
        tried = sorted(sorted(candidates, key=influence.__getitem__)[:SHORTLIST])
        return divergences(walk, dense, tried)

    return distances


def last_hidden(walk: Walk) -> Tensor:
    """What leaves the last layer, before the final norm: (windows, tokens, hidden)."""
    for index in range(len(walk)):
        for window in torch.split(walk.states, 1):
            window.copy_(walk.run(index, window))
    return walk.states


def block_influence(walk: Walk) -> list[float]:
    """Of every layer, a mean over the tokens of a walk that has not set out."""
    total = [0.0] * len(walk)
    for states in torch.split(walk.states, 1):
        for i in range(len(walk)):
            after = walk.run(i, states)
            total[i] += float(1 - nn.functional.cosine_similarity(states[0], after[0]).mean())
            states = after
    return [influence / len(walk.states) for influence in total]


def divergences(walk: Walk, dense: Tensor, candidates: Sequence[int]) -> dict[int, float]:
    """Candidate -> mean KL(dense || without that layer) in nats a token; the walk has not set out."""
    total = dict.fromkeys(candidates, 0.0)
    for states, wanted in zip(torch.split(walk.states, 1), dense, strict=True):
        target = walk.logits(wanted).log_softmax(-1)
        for i in range(max(candidates) + 1):
            if i in total:
                without = states
                for later in range(i + 1, len(walk)):
                    without = walk.run(later, without)
                answers = walk.logits(without[0]).log_softmax(-1)
                kl = nn.functional.kl_div(answers, target, log_target=True, reduction="none").sum(-1)
                total[i] += float(kl.mean()) / len(walk.states)
            states = walk.run(i, states)
    return total
