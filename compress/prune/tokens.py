"""A language model with fewer tokens: its tokenizer's files, its embedding and head, its configs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import nn

from compress.models.checkpoint import copy_companions, read_json
from compress.prune.vocabulary import (
    check_kind,
    choose,
    numbers_in,
    renumber_settings,
    rewrite_tokenizer,
)

if TYPE_CHECKING:  # what prunes other models reaches this file too
    from compress.tasks.language_modeling.model import CausalLM

_SETTINGS = ("tokenizer_config.json", "generation_config.json")
# Other forms of what tokenizer.json holds, which nothing renumbers; transformers writes those it needs anew.
_STALE = ("vocab.json", "merges.txt", "vocab.txt", "added_tokens.json", "sentencepiece.bpe.model")


def cut_vocabulary(model: CausalLM, texts: Sequence[str], target: int, folder: Path) -> tuple[int, ...]:
    """Keep at most `target` tokens, those that `texts` need most; returns their old numbers by the new.

    `folder`: an empty one for the rewritten files, which `model` reads when it is saved. Raises
    ModelError for a tokenizer that cannot be cut, ConfigError for a target below what must stay.
    """
    content = read_json(model.folder / "tokenizer.json")
    check_kind(content)
    if target >= model.config.vocab_size:
        return tuple(range(model.config.vocab_size))
    required = template_tokens(model.tokenizer)
    configs = [model.config.to_dict(), *(_settings(model.folder, name) for name in _SETTINGS)]
    required |= {old for settings in configs for old in numbers_in(settings) if old < model.config.vocab_size}
    stay = choose(content, count_tokens(model, texts), target, required)
    write_files(model.folder, content, stay, folder)
    cut_rows(model, stay)
    model.folder = folder
    model.tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    return stay


def count_tokens(model: CausalLM, texts: Iterable[str]) -> Counter[int]:
    """Number -> occurrences, of texts cut into windows as calibration and evaluation do."""
    counts: Counter[int] = Counter()
    for text in texts:
        counts.update(model.tokenize(text + "\n"))
    return counts


def bytes_per_token(model: CausalLM, texts: Sequence[str]) -> float:
    return sum(len(text.encode()) + 1 for text in texts) / sum(len(model.tokenize(t + "\n")) for t in texts)


def template_tokens(tokenizer: Any) -> set[int]:
    """Numbers that the chat template itself writes; none where there is no template."""
    if not tokenizer.chat_template:
        return set()
    talk = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    written: set[int] = set()
    for messages in (talk[:1], talk, [{"role": "system", "content": "."}, *talk]):
        try:
            written |= set(
                tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
            )
        except Exception:  # a template refuses what it does not know, with errors of any kind
            continue
    return written


def write_files(source: Path, content: dict[str, Any], stay: Sequence[int], folder: Path) -> None:
    """The companions of a checkpoint in `source`, with the tokens `stay` alone, into `folder`."""
    new = {old: number for number, old in enumerate(stay)}
    copy_companions(source, folder)
    for name in _STALE:
        (folder / name).unlink(missing_ok=True)
    (folder / "tokenizer.json").write_text(
        json.dumps(rewrite_tokenizer(content, stay), ensure_ascii=False), "utf-8"
    )
    for name in _SETTINGS:
        if (source / name).is_file():
            changed = renumber_settings(_settings(source, name), new)
            (folder / name).write_text(json.dumps(changed, indent=2, ensure_ascii=False), "utf-8")


@torch.no_grad()
def cut_rows(model: CausalLM, stay: Sequence[int]) -> None:
    """The embedding's and the head's rows of `stay`; one matrix stays one. Renumbers the configs too."""
    module: Any = model.module
    index, new = torch.tensor(stay), {old: number for number, old in enumerate(stay)}
    embedding, head = module.get_input_embeddings(), module.get_output_embeddings()
    tied = head.weight is embedding.weight
    embedding.weight = nn.Parameter(embedding.weight[index].clone())
    head.weight = embedding.weight if tied else nn.Parameter(head.weight[index].clone())
    if head.bias is not None:
        head.bias = nn.Parameter(head.bias[index].clone())
    embedding.num_embeddings = head.out_features = len(stay)
    if embedding.padding_idx is not None:
        embedding.padding_idx = new.get(embedding.padding_idx)
    for part in (module, module.model):
        part.vocab_size = len(stay)
        if getattr(part, "padding_idx", None) is not None:
            part.padding_idx = new.get(part.padding_idx)
    for config in (model.config, module.generation_config):
        old = config.to_dict()
        for name, value in renumber_settings(old, new).items():
            if value != old[name]:
                setattr(config, name, value)
    model.config.vocab_size = len(stay)


def _settings(folder: Path, name: str) -> dict[str, Any]:
    return read_json(folder / name) if (folder / name).is_file() else {}
