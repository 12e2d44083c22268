"""Splits that never share an example, written once and checked by hash whenever they are read.

    calibration.jsonl train.jsonl select.jsonl test.jsonl     {"text": ..., "document": number}
    pairs/<name>.json                                         {"split", "texts", "pairs", "scores"}
    retrieval/<split>.json                                    {"queries", "answers", "passages", "documents"}
    manifest.json                                             counts, fingerprints, near-duplicates, seed

Whole documents go to one split each. Test takes first, then select, calibration and train, and each drops
the sentences that an earlier one or a judged text has.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.config.data import PairFile, PairFormat, PairSplit, TextData
from compress.data.assign import Examples, order_key, split_documents
from compress.data.near_duplicates import near_duplicates
from compress.data.retrieval import RetrievalSet, hold_out, load_set, sentences_of, write_sets
from compress.data.similarity import Judgements, read_matrix, read_table
from compress.data.text import Document, read_documents, split_sentences, text_key, words
from compress.errors import ConfigError, DataError
from compress.schema.report import NearDuplicates, Split
from compress.sources import fetch, identity

NAMES = ("calibration", "train", "select", "test")


@dataclass(frozen=True, kw_only=True)
class TextSplit:
    """Unlabelled texts; `documents[i]` numbers the document that `texts[i]` is from."""

    name: str
    texts: tuple[str, ...]
    documents: tuple[int, ...]
    fingerprint: str
    requested: int | None = None  # null: all there is
    domains: tuple[str, ...] = ()  # the corpus of each text, where texts are whole documents

    @property
    def examples(self) -> tuple[str, ...]:
        return self.texts


@dataclass(frozen=True, kw_only=True)
class PairSet:
    """Human judgements: `scores[k]` of the texts `pairs[k, 0]` and `pairs[k, 1]`."""

    name: str
    split: PairSplit
    texts: tuple[str, ...]
    pairs: NDArray[np.int64]
    scores: NDArray[np.float64]
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Splits:
    calibration: TextSplit
    train: TextSplit
    select: TextSplit
    test: TextSplit
    pairs: dict[str, PairSet]
    near_duplicates: dict[str, NearDuplicates] = field(default_factory=dict)  # by name of the test set
    retrieval: dict[str, RetrievalSet] = field(default_factory=dict)  # by name of the split

    @property
    def texts(self) -> tuple[TextSplit, ...]:
        return self.calibration, self.train, self.select, self.test

    @property
    def test_sets(self) -> dict[str, str]:
        """Name, as in `facts`, and fingerprint of all that the reported quality is measured on."""
        judged = {name: each for name, each in self.pairs.items() if each.split is PairSplit.test}
        return {
            "test": self.test.fingerprint,
            **{f"pairs/{name}": each.fingerprint for name, each in judged.items()},
            **{
                f"retrieval/{name}": each.fingerprint
                for name, each in self.retrieval.items()
                if name == "test"
            },
        }

    def facts(self) -> dict[str, Split]:
        """What the report tells of each split; a pair set counts its pairs, one of retrieval its queries."""
        facts = {
            split.name: Split(
                examples=len(split.texts),
                fingerprint=split.fingerprint,
                requested=split.requested,
                near_duplicates=self.near_duplicates.get(split.name),
            )
            for split in self.texts
        }
        for name, judged in self.pairs.items():
            facts[f"pairs/{name}"] = Split(
                examples=len(judged.pairs),
                fingerprint=judged.fingerprint,
                near_duplicates=self.near_duplicates.get(f"pairs/{name}"),
            )
        for name, asked in self.retrieval.items():
            facts[f"retrieval/{name}"] = Split(
                examples=len(asked.queries),
                fingerprint=asked.fingerprint,
                near_duplicates=self.near_duplicates.get(f"retrieval/{name}"),
            )
        return facts


def open_splits(config: TextData, out: Path) -> None:
    """Read corpora and judgements, split them, write them into `out`. The same config, the same bytes.

    Raises SourceError and DataError; the latter also when there is less than was asked for.
    """
    judged = {name: _read_pairs(name, file) for name, file in config.pairs.items()}
    pairs, repeated = without_repeated_pairs({name: config.pairs[name].split for name in judged}, judged)
    documents: list[Document] = []
    of_test: list[int] = []
    for name, file in config.corpora.items():
        read = read_documents(fetch(file.source, file.sha256), file)
        if name == config.test_corpus:
            of_test = list(range(len(documents), len(documents) + len(read)))
        documents += read
    retrieval = _hold_out(config, documents, of_test)
    held = {number for rows in retrieval.values() for _, _, number in rows}
    others = [number for number in range(len(documents)) if number not in held]
    chosen, dropped = split_documents(
        config,
        [documents[number] for number in others],
        [place for place, number in enumerate(others) if number in set(of_test)],
        _judged_sentences(pairs.values()) | sentences_of(retrieval),
    )
    out.mkdir(parents=True, exist_ok=True)
    manifest = _write(config, chosen, pairs, out)
    manifest["retrieval"] = write_sets(retrieval, out)
    manifest["dropped"] = {"sentences": dict(sorted(dropped.items())), "pairs": repeated}
    nearly = near_duplicates(
        _tested(config, chosen, pairs, retrieval.get("test", [])),
        {name: [text for text, _ in chosen[name]] for name in NAMES if name != "test"},
    )
    manifest["near_duplicates"] = {name: asdict(each) for name, each in nearly.items()}
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", "utf-8")
    load_texts(out)


def input_digests(config: TextData) -> dict[str, str]:
    """Source -> identity of every file the splits are made of; what is pinned is not downloaded for it."""
    found = {file.source: identity(file.source, file.sha256) for file in config.corpora.values()}
    for pair in config.pairs.values():
        found[pair.source] = identity(pair.source, pair.sha256)
        if pair.texts is not None:
            found[pair.texts] = identity(pair.texts, _texts_sha256(pair))
    return found


def _hold_out(
    config: TextData, documents: Sequence[Document], of_test: Sequence[int]
) -> dict[str, list[tuple[str, str, int]]]:
    """Whole documents for retrieval, in the order of a hash, but for those that other splits need."""
    order = sorted(of_test, key=lambda i: (order_key(config.seed, documents[i]), i))
    counts = {name: getattr(config.retrieval, name) for name in ("test", "select")}
    return hold_out(documents, order, counts)


def _tested(
    config: TextData,
    chosen: dict[str, Examples],
    judged: dict[str, Judgements],
    asked: Sequence[tuple[str, str, int]],
) -> dict[str, list[tuple[str, ...]]]:
    """The texts of each example of every test set; those of a pair are two."""
    sets: dict[str, list[tuple[str, ...]]] = {"test": [(text,) for text, _ in chosen["test"]]}
    for name, (texts, pairs, _) in judged.items():
        if config.pairs[name].split is PairSplit.test:
            sets[f"pairs/{name}"] = [(texts[i], texts[j]) for i, j in pairs]
    if asked:
        sets["retrieval/test"] = [(query, passage) for query, passage, _ in asked]
    return sets


# ---------------------------------------------------------------- judged pairs


def _texts_sha256(file: PairFile) -> str | None:
    """A matrix and its texts in one wheel share its sha256; two files of one's own cannot share one."""
    wheel = file.source.partition("/")[0]
    same = file.texts is not None and wheel.startswith("package:") and file.texts.startswith(f"{wheel}/")
    return file.sha256 if same else None


def _read_pairs(name: str, file: PairFile) -> Judgements:
    source = fetch(file.source, file.sha256)
    if file.format is PairFormat.tsv:
        return read_table(source, file.encoding)
    if file.texts is None:
        raise ConfigError(
            f"data.pairs.{name}.texts is missing", allowed="a source of the matrix's texts, one a line"
        )
    return read_matrix(source, fetch(file.texts, _texts_sha256(file)), file.encoding)


def without_repeated_pairs(
    split_of: dict[str, PairSplit], judged: dict[str, Judgements]
) -> tuple[dict[str, Judgements], dict[str, int]]:
    """Take out of the SELECT sets the pairs that a TEST set has too, in either order; how many, by set."""
    tested = {
        key
        for name, (texts, pairs, _) in judged.items()
        if split_of[name] is PairSplit.test
        for key in _pair_keys(texts, pairs)
    }
    kept, repeated = dict(judged), {}
    for name, (texts, pairs, scores) in judged.items():
        if split_of[name] is PairSplit.select:
            new = np.array([key not in tested for key in _pair_keys(texts, pairs)], bool)
            repeated[name] = int((~new).sum())
            if not new.any():
                raise DataError(f"every pair of {name} is in a test set too", next="select by another set")
            used = np.unique(pairs[new])
            kept[name] = (tuple(texts[i] for i in used), np.searchsorted(used, pairs[new]), scores[new])
    return kept, repeated


def _pair_keys(texts: Sequence[str], pairs: NDArray[np.int64]) -> Iterator[frozenset[str]]:
    return (frozenset((text_key(texts[i]), text_key(texts[j]))) for i, j in pairs)


def _judged_sentences(judged: Iterable[Judgements]) -> set[str]:
    """Keys of the judged texts and of each of their sentences."""
    texts = [text for names, _, _ in judged for text in names]
    return {text_key(part) for text in texts for part in (text, *split_sentences(text))}


# ---------------------------------------------------------------- files


def _write(
    config: TextData, chosen: dict[str, Examples], judged: dict[str, Judgements], out: Path
) -> dict[str, Any]:
    splits, pairs = {}, {}
    for name in NAMES:
        examples = chosen[name]
        lines = [json.dumps({"text": t, "document": d}, ensure_ascii=False) + "\n" for t, d in examples]
        splits[name] = {
            "requested": getattr(config, name) or None,
            "examples": len(examples),
            "documents": len({document for _, document in examples}),
            "words": sum(words(text) for text, _ in examples),
            "fingerprint": save(out / f"{name}.jsonl", "".join(lines)),
        }
    (out / "pairs").mkdir(exist_ok=True)
    for name, (texts, indices, scores) in judged.items():
        split = config.pairs[name].split
        content = {
            "split": split.value,
            "texts": texts,
            "pairs": indices.tolist(),
            "scores": scores.tolist(),
        }
        pairs[name] = {
            "split": split.value,
            "examples": len(scores),
            "texts": len(texts),
            "fingerprint": save(
                out / "pairs" / f"{name}.json", json.dumps(content, ensure_ascii=False) + "\n"
            ),
        }
    return {"version": 1, "seed": config.seed, "splits": splits, "pairs": pairs}


def save(path: Path, content: str) -> str:
    """Write a file of a split; returns its fingerprint."""
    data = content.encode()
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def load_texts(folder: Path) -> Splits:
    """Read what `open_splits` wrote. Raises DataError when it was changed or two splits share an example."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
        texts = {name: _load_texts(folder, name, manifest["splits"][name]) for name in NAMES}
        pairs = {name: _load_pairs(folder, name, manifest) for name in manifest["pairs"]}
        nearly = {name: NearDuplicates(**each) for name, each in manifest["near_duplicates"].items()}
        retrieval = {
            name: load_set(
                _load(folder / "retrieval" / f"{name}.json", each["fingerprint"]), each["fingerprint"]
            )
            for name, each in manifest.get("retrieval", {}).items()
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"cannot read the splits in {folder}", found=error, next="delete the folder and run again"
        ) from None
    splits = Splits(**texts, pairs=pairs, near_duplicates=nearly, retrieval=retrieval)
    check_disjoint(splits)
    return splits


def _load(path: Path, fingerprint: str) -> str:
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != fingerprint:
        raise DataError(
            f"{path} was changed after it was written",
            found=found,
            allowed=fingerprint,
            next="delete its folder and run again",
        )
    return data.decode()


def _load_texts(folder: Path, name: str, counts: dict[str, Any]) -> TextSplit:
    fingerprint = counts["fingerprint"]
    content = _load(folder / f"{name}.jsonl", fingerprint)
    rows = [json.loads(line) for line in content.split("\n") if line]
    return TextSplit(
        name=name,
        texts=tuple(row["text"] for row in rows),
        documents=tuple(row["document"] for row in rows),
        fingerprint=fingerprint,
        requested=counts["requested"],
        domains=tuple(row["domain"] for row in rows if "domain" in row),
    )


def _load_pairs(folder: Path, name: str, manifest: dict[str, Any]) -> PairSet:
    fingerprint = manifest["pairs"][name]["fingerprint"]
    content = json.loads(_load(folder / "pairs" / f"{name}.json", fingerprint))
    return PairSet(
        name=name,
        split=PairSplit(content["split"]),
        texts=tuple(content["texts"]),
        pairs=np.array(content["pairs"], np.int64).reshape(-1, 2),
        scores=np.array(content["scores"], np.float64),
        fingerprint=fingerprint,
    )


def check_disjoint(splits: Splits) -> None:
    """Raise DataError when two splits share a text or a document, or a select set a pair of a test set."""
    owner_of_text: dict[str, str] = {}
    owner_of_document: dict[int, str] = {}
    for name, judged in splits.pairs.items():
        owner_of_text |= {text_key(text): f"pairs/{name}" for text in judged.texts}
    for name, asked in splits.retrieval.items():
        for text in (*asked.queries, *asked.passages):
            owner = owner_of_text.setdefault(text_key(text), f"retrieval/{name}")
            if owner.startswith("retrieval") and owner != f"retrieval/{name}":
                raise _shared(owner, f"retrieval/{name}", text)
    for split in splits.texts:
        for text, document in zip(split.texts, split.documents, strict=True):
            owner = owner_of_text.setdefault(text_key(text), split.name)
            if owner != split.name:
                raise _shared(owner, split.name, text)
            owner = owner_of_document.setdefault(document, split.name)
            if owner != split.name:
                raise _shared(owner, split.name, f"document {document}: {text}")
    tested: dict[frozenset[str], str] = {}
    for wanted in (PairSplit.test, PairSplit.select):
        for name, judged in splits.pairs.items():
            if judged.split is wanted:
                for key, pair in zip(_pair_keys(judged.texts, judged.pairs), judged.pairs, strict=True):
                    if wanted is PairSplit.test:
                        tested[key] = name
                    elif key in tested:
                        shown = " | ".join(judged.texts[i] for i in pair)
                        raise _shared(f"pairs/{tested[key]}", f"pairs/{name}", shown)


def _shared(first: str, second: str, text: str) -> DataError:
    return DataError(
        f"the splits {first} and {second} share an example",
        found=text if len(text) <= 120 else text[:117] + "...",
        allowed="every text, document and pair in one split",
        next="delete the splits and run again; if it persists, this is a bug",
    )
