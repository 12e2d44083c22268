"""Whole documents to splits, by corpus: what language models are calibrated, trained and judged with.

The files are those of `splits`, with the corpus of each text as its `domain`.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from compress.config.data import Documents
from compress.data.near_duplicates import near_duplicates
from compress.data.splits import NAMES, load_texts, save
from compress.data.text import Document, read_documents, split_sentences, text_key, words
from compress.errors import DataError
from compress.sources import fetch, identity

Chosen = list[tuple[str, int, str]]  # text, number of its document, corpus


def open_documents(config: Documents, out: Path) -> None:
    """Read the corpora, share their documents out, write them into `out`. The same config, the same bytes.

    Raises SourceError and DataError; the latter also when there is less than was asked for.
    """
    corpora = {
        name: read_documents(fetch(file.source, file.sha256), file) for name, file in config.corpora.items()
    }
    chosen, dropped = share_out(config, corpora)
    out.mkdir(parents=True, exist_ok=True)
    splits = {name: _write(config, name, chosen[name], out) for name in NAMES}
    texts = {name: [text for text, _, _ in chosen[name]] for name in NAMES}
    seen = {name: texts[name] for name in NAMES if name != "test"}
    nearly = near_duplicates({"test": [(text,) for text in texts["test"]]}, seen)
    manifest = {
        "version": 1,
        "seed": config.seed,
        "splits": splits,
        "pairs": {},
        "dropped": dict(sorted(dropped.items())),
        "near_duplicates": {name: asdict(each) for name, each in nearly.items()},
    }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", "utf-8")
    load_texts(out)


def input_digests(config: Documents) -> dict[str, str]:
    """Source -> identity of every file that is read; what is pinned is not downloaded for it."""
    return {file.source: identity(file.source, file.sha256) for file in config.corpora.values()}


def share_out(
    config: Documents, corpora: Mapping[str, Sequence[Document]]
) -> tuple[dict[str, Chosen], Counter[str]]:
    """Name of the split -> its documents; also how many were left out as too short or as copies.

    Documents come in the order of a hash of the seed and their content. Test takes first, then select,
    calibration and train; the first of several copies counts. Domains lie in the order they are named in.
    """
    free: dict[str, list[tuple[str, int]]] = {}
    dropped, keys, number = Counter[str](), set[str](), 0
    for name, documents in corpora.items():
        free[name] = []
        for document in documents:
            number += 1
            if words(document.text) < config.min_words:
                dropped["short"] += 1
            elif (key := text_key(document.text)) in keys:
                dropped["copies"] += 1
            else:
                keys.add(key)
                free[name].append((document.text, number - 1))
        free[name].sort(key=lambda each: hashlib.sha256(f"{config.seed}\n{each[0]}".encode()).digest())
    chosen: dict[str, Chosen] = {name: [] for name in NAMES}
    for split in ("test", "select", "calibration"):
        for name, asked in getattr(config, split).items():
            taken, free[name] = free[name][:asked], free[name][asked:]
            if len(taken) < asked:
                raise _too_few(split, name, asked, len(taken), config)
            chosen[split] += [(beginning(text, config.max_words), i, name) for text, i in taken]
    for name in config.train:
        if not free[name]:
            raise _too_few("train", name, 1, 0, config)
        chosen["train"] += [(text, i, name) for text, i in free[name]]
    return chosen, dropped


def beginning(text: str, max_words: int) -> str:
    """The paragraphs of `text` that come to at most `max_words`; of a longer first one whole sentences."""
    kept: list[str] = []
    for separator, parts in (("\n", text.split("\n")), (" ", split_sentences(text.split("\n")[0]))):
        left = max_words
        for part in parts:
            left -= words(part)
            if left < 0:
                break
            kept.append(part)
        if kept:
            return separator.join(kept)
    return " ".join(text.split()[:max_words])


def _write(config: Documents, name: str, chosen: Chosen, out: Path) -> dict[str, object]:
    lines = [
        json.dumps({"text": text, "document": document, "domain": domain}, ensure_ascii=False) + "\n"
        for text, document, domain in chosen
    ]
    return {
        "requested": None if name == "train" else sum(getattr(config, name).values()),
        "examples": len(chosen),
        "documents": len(chosen),
        "domains": dict(Counter(domain for _, _, domain in chosen)),
        "words": sum(words(text) for text, _, _ in chosen),
        "fingerprint": save(out / f"{name}.jsonl", "".join(lines)),
    }


def _too_few(split: str, corpus: str, asked: int, found: int, config: Documents) -> DataError:
    lower = f"lower data.{split}.{corpus} or what the splits before it take of the corpus, or data.min_words"
    if split == "train":
        lower = f"take {corpus!r} out of data.train, lower what the other splits take of it"
    return DataError(
        f"too little text for the split {split}",
        found=f"{found} documents of at least {config.min_words} words left in the corpus {corpus!r}",
        allowed=f"at least {asked}",
        next=f"{lower}, or add text",
    )
