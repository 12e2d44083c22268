"""Splits of labelled text that never share an example: calibration, train, select, test.

    calibration.jsonl train.jsonl select.jsonl test.jsonl     a Record a line, without what is empty
    manifest.json     kind, counts, fingerprints, names of the labels, what was left out and why, seed

A set is read twice, a row at a time: first for numbers of its rows, by which they are shared out, then for
the rows that were chosen. Only these are ever in memory.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from compress.config.records import RecordData
from compress.data.label_numbers import balanced_weights
from compress.data.near_duplicates import near_duplicates
from compress.data.record import Record
from compress.data.record_sets import Opened, open_sets, record_key, texts_of
from compress.data.splits import NAMES, save
from compress.errors import DataError
from compress.schema.report import NearDuplicates, Split
from compress.sources import identity

KIND = "records"
_DEFAULTS = {each.name: each.default for each in fields(Record)}


@dataclass(frozen=True, kw_only=True)
class RecordSplit:
    name: str
    examples: tuple[Record, ...]
    fingerprint: str
    requested: int | None = None  # null: all there is

    @property
    def texts(self) -> tuple[str, ...]:
        """What each example reads, in one text."""
        return tuple(" ".join(texts_of(record)) for record in self.examples)


@dataclass(frozen=True, kw_only=True)
class RecordSplits:
    calibration: RecordSplit
    train: RecordSplit
    select: RecordSplit
    test: RecordSplit
    names: tuple[str, ...]  # of labels or tags, by their number
    near_duplicates: dict[str, NearDuplicates] = field(default_factory=dict)  # by name of the test set

    @property
    def parts(self) -> tuple[RecordSplit, ...]:
        return self.calibration, self.train, self.select, self.test

    @property
    def test_sets(self) -> dict[str, str]:
        return {"test": self.test.fingerprint}

    def facts(self) -> dict[str, Split]:
        """What the report tells of each split."""
        return {
            split.name: Split(
                examples=len(split.examples),
                fingerprint=split.fingerprint,
                requested=split.requested,
                near_duplicates=self.near_duplicates.get(split.name),
            )
            for split in self.parts
        }

    def class_weights(self) -> tuple[float, ...]:
        """By which every class of the training split weighs the same: see `balanced_weights`.

        Of several labels a text, those of an example with a label beside one without it, for every class.
        """
        labelled = [record.labels for record in self.train.examples if record.labels]
        if labelled and len(labelled[0]) == len(self.names) > 1:
            positive = [sum(labels[k] > 0 for labels in labelled) for k in range(len(self.names))]
            return tuple((len(labelled) - count) / count if count else 0.0 for count in positive)
        numbers = Counter(int(labels[0]) for labels in labelled)
        numbers.update(tag for record in self.train.examples for tag in record.tags)
        return balanced_weights([numbers[k] for k in range(len(self.names))])


# ---------------------------------------------------------------- opening


def open_records(
    config: RecordData, out: Path, checkpoint: Path | None = None, examples: str | None = None
) -> None:
    """Read the sets, share them out, write into `out`. The same config and model, the same bytes.

    Labels become numbers of the outputs of the classifier `checkpoint`, by name. `examples`: the kind of them
    that the model reads (`ModelConfig.examples`); by default what the columns are called tells it.

    Raises SourceError and DataError; the latter also for labels that the model does not know, for a test of
    one class only, and where there is less than was asked for.
    """
    opened = open_sets(config, checkpoint, examples)
    out.mkdir(parents=True, exist_ok=True)
    splits: dict[str, Any] = {}
    for name in NAMES:
        records = opened.chosen[name]
        splits[name] = {
            "requested": opened.requested[name],
            "examples": len(records),
            "groups": len({record.group for record in records}),
            "labels": _count_labels(records, opened.names),
            "fingerprint": save(out / f"{name}.jsonl", "".join(map(_line, records))),
        }
    _check_test(opened, splits["test"]["labels"])
    nearly = near_duplicates(
        {"test": [texts_of(record) for record in opened.chosen["test"]]},
        {
            name: [text for record in opened.chosen[name] for text in texts_of(record)]
            for name in NAMES
            if name != "test"
        },
    )
    manifest = {
        "kind": KIND,
        "version": 1,
        "seed": config.seed,
        "names": opened.names,
        "splits": splits,
        "absent": _absent(splits),
        "dropped": opened.dropped,
        "near_duplicates": {name: asdict(each) for name, each in nearly.items()},
    }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", "utf-8")
    load_records(out)


def input_digests(config: RecordData) -> dict[str, str]:
    """Source -> identity of all that is read; what is pinned is not downloaded for it."""
    sets = (config.train_set, config.select_set, config.test_set)
    return {each.source: identity(each.source, each.sha256) for each in sets if each.source is not None}


def _count_labels(records: Sequence[Record], names: Sequence[str]) -> dict[str, int]:
    """How many examples, or words, have each label; nothing where labels are values."""
    counts: Counter[str] = Counter()
    for record in records:
        counts.update(names[tag] for tag in record.tags)
        if len(record.labels) == len(names) > 1:
            counts.update(name for name, value in zip(names, record.labels, strict=True) if value > 0)
        elif names and record.labels:
            counts[names[int(record.labels[0])]] += 1
    return {name: counts[name] for name in names if counts[name]}


def _absent(splits: Mapping[str, Any]) -> list[str]:
    """Labels that test does not have while another split does: no metric of test says anything of them."""
    seen = {label for split in splits.values() for label in split["labels"]}
    return sorted(seen - set(splits["test"]["labels"]))


def _check_test(opened: Opened, counts: Mapping[str, int]) -> None:
    """Raise DataError where test is too small, or where its labels cannot tell a model from one that always
    says the same."""
    records, names, cut_here = opened.chosen["test"], opened.names, "test" in opened.cut_here
    if len(records) < 2:
        raise DataError(
            "the test set is too small to judge a model",
            found=f"{len(records)} of {sum(map(len, opened.chosen.values()))} examples",
            allowed="two at least; hundreds for intervals that tell anything",
            next="add examples, or data.test=0.5" if cut_here else "add examples to data.test_set",
        )
    labelled = [each for each in records if each.labels or each.tags or any(each.relevance) or each.answers]
    if not labelled:
        raise DataError(
            "the test set has no labels",
            found=f"{len(records)} examples",
            next="name their column: data.columns.label=..., tags=..., positive=... or answers=...",
        )
    values = {each.labels for each in records}
    if (names and len(counts) < 2) or (not names and labelled[0].labels and len(values) < 2):
        [only] = counts or [str(next(iter(values)))]
        line = f" (line {labelled[0].line})" if labelled[0].line else ""
        raise DataError(
            "the test set has one class only, which any constant answer gets right",
            found=f"{only}: {len(records)} examples{line}",
            allowed="two classes or more; for entities another tag beside O",
            next="add examples of others, or data.test=0.5: it is cut by label"
            if cut_here
            else "shuffle the file before it is parted, or leave data.test_set out: it is cut by label then",
        )


# ---------------------------------------------------------------- files


def _line(record: Record) -> str:
    content = {name: value for name, value in vars(record).items() if value != _DEFAULTS[name]}
    return json.dumps(content, ensure_ascii=False) + "\n"


def _record(line: str) -> Record:
    content = json.loads(line)
    for name, value in content.items():
        if isinstance(value, list):
            content[name] = tuple(tuple(each) if isinstance(each, list) else each for each in value)
    return Record(**content)


def load_records(folder: Path) -> RecordSplits:
    """Read what `open_records` wrote. Raises DataError when it was changed or two splits share an example."""
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text("utf-8"))
        parts = {name: _load(folder, name, manifest["splits"][name]) for name in NAMES}
        nearly = {name: NearDuplicates(**each) for name, each in manifest["near_duplicates"].items()}
        names = tuple(manifest["names"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"cannot read the splits in {folder}", found=error, next="delete the folder and run again"
        ) from None
    splits = RecordSplits(**parts, names=names, near_duplicates=nearly)
    _check_disjoint(splits)
    return splits


def _load(folder: Path, name: str, counts: dict[str, Any]) -> RecordSplit:
    path = folder / f"{name}.jsonl"
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != counts["fingerprint"]:
        raise DataError(
            f"{path} was changed after it was written",
            found=found,
            allowed=counts["fingerprint"],
            next="delete its folder and run again",
        )
    lines = data.decode().split("\n")
    return RecordSplit(
        name=name,
        examples=tuple(_record(line) for line in lines if line),
        fingerprint=found,
        requested=counts["requested"],
    )


def _check_disjoint(splits: RecordSplits) -> None:
    owners: dict[str, str] = {}
    for split in splits.parts:
        for record in split.examples:
            for key, what in _owned(record):
                if (owner := owners.setdefault(key, split.name)) != split.name:
                    raise DataError(
                        f"the splits {owner} and {split.name} share an example or a group",
                        found=what[:120],
                        next="delete the splits and run again; if it persists, this is a bug",
                    )


def _owned(record: Record) -> Iterator[tuple[str, str]]:
    yield record_key(record), " ".join(texts_of(record))
    yield f"group {record.group}", f"group {record.group}"
