"""From the files of a configuration to the records of each split: read by rows, shared out, numbered."""

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from compress.config.records import RecordData, RecordSet
from compress.data.bm25 import best_passages
from compress.data.cut import Codes, Rows, cut, shuffled
from compress.data.examples import Example, examples, joined
from compress.data.label_numbers import (
    ONE,
    SEVERAL,
    VALUE,
    Outputs,
    are_measured,
    number_by_name,
    outputs_of,
    value_of,
)
from compress.data.layouts import Layout, find_layout
from compress.data.near_duplicates import nearest
from compress.data.readers import Table, open_table
from compress.data.readers.hub import also_holds, class_names, files_of
from compress.data.record import Record
from compress.data.text import text_key
from compress.errors import DataError
from compress.sources import fetch

_CUT = {"test": (0.2, 2000), "select": (0.1, 1000), "calibration": (0.1, 512)}  # share and most, by default
_RANKED = 10_000  # queries among whose passages candidates are looked for


@dataclass(frozen=True)
class Opened:
    chosen: dict[str, list[Record]]
    names: tuple[str, ...]  # of labels or tags by number; none where labels are values, or there are none
    requested: dict[str, int | None]
    dropped: dict[str, dict[str, int]]  # set or split -> why -> rows
    cut_here: tuple[str, ...]  # splits without a set of their own


@dataclass(frozen=True)
class Scan:
    """A set, read once: eight bytes a row of its text, its group and its label.

    Of a ranking all rows of one query, wherever they stand, are the one that is first.
    """

    tables: list[tuple[Table, Layout]]
    kind: str  # of its examples
    keys: Codes
    groups: Codes
    strata: Rows
    seen: dict[str, str]  # name of a label -> where it first stands
    several: bool  # whether a text has a list of labels
    empty: int  # rows without text, which do not count

    def __len__(self) -> int:
        return len(self.keys)


def open_sets(config: RecordData, checkpoint: Path | None, wanted: str | None) -> Opened:
    """`wanted`: see `find_layout`. Raises SourceError and DataError."""
    files = _files(config)
    outputs = outputs_of(checkpoint)
    valued = outputs.kind == VALUE
    scans = {name: scan(config, found, name, valued, wanted) for name, found in files.items()}
    labels = _numbering(config, scans, outputs, _one_kind(each.kind for each in scans.values()))
    rows, dropped = share_out(config, scans)
    chosen: dict[str, list[Record]] = {}
    for name, of_set in rows.items():
        chosen |= dict(zip(of_set, read(config, scans[name], list(of_set.values()), labels), strict=True))
    cut_here = [name for name in ("test", "select", "calibration", "train") if name in rows["train"]]
    for name, count in drop_nearly_repeated(chosen, cut_here).items():
        dropped.setdefault(name, {})["nearly repeat another split"] = count
    requested = {name: _requested(config, name) for name in chosen}
    if config.train and len(chosen["train"]) < config.train:
        requested["train"] = None
    for name, records in chosen.items():
        chosen[name] = with_candidates(records, config.candidates)
    for name, each in scans.items():
        if each.empty:
            dropped.setdefault(name, {})["empty"] = each.empty
    return Opened(chosen, labels.names, requested, dropped, tuple(cut_here))


def _requested(config: RecordData, name: str) -> int | None:
    asked = config.train if name == "train" else getattr(config, name)
    return int(asked) if asked and asked >= 1 else None


@dataclass(frozen=True)
class Files:
    """Of a set; `class_names`: column -> names that lie beside the files."""

    config: RecordSet
    paths: list[Path]
    class_names: dict[str, tuple[str, ...]]


def _files(config: RecordData) -> dict[str, Files]:
    """By the name of the set."""
    root = fetch(config.train_set.source, config.train_set.sha256)
    found = {"train": Files(config.train_set, files_of(root, config.train_set, "train"), class_names(root))}
    for name, own in (("test", config.test_set), ("select", config.select_set)):
        if own.source is not None:
            folder = fetch(own.source, own.sha256)
            found[name] = Files(own, files_of(folder, own, name), class_names(folder))
        elif also_holds(root, config.train_set, name):
            beside = files_of(root, config.train_set, name, beside=True)
            if name == "select" and "test" in found and set(beside) & set(found["test"].paths):
                continue  # whoever tests on the validation files selects on others
            found[name] = Files(config.train_set, beside, class_names(root))
    return found


# ---------------------------------------------------------------- the first reading


def scan(config: RecordData, found: "Files", split: str, valued: bool, wanted: str | None) -> Scan:
    """Raises DataError, with the line, for a row that cannot be read. `valued`: whether labels are numbers,
    which need no list of names."""
    keys, groups, strata = array("Q"), array("Q"), array("q")
    seen: dict[str, str] = {}
    numbers: dict[str, int] = {}
    several, empty = False, 0
    tables = []
    for path in found.paths:
        table = open_table(path, found.config)
        table = replace(table, class_names={**found.class_names, **table.class_names})
        may_lack = split == "train" and config.test_set.source is not None
        layout = find_layout(table, config.named(), config.group, config.label_separator, may_lack, wanted)
        tables.append((table, layout))
        for example in examples(table, layout):
            if example is None:
                empty += 1
                continue
            record, names = example.record, () if valued else example.names
            keys.append(_code(record_key(record)))
            groups.append(_code(text_key(group_of(record))))
            for name in names:
                seen.setdefault(name, table.at(record.line))
            several |= example.several
            strata.append(numbers.setdefault(names[0], len(numbers)) if len(names) == 1 else -1)
    if not keys:
        where = ", ".join(path.name for path in found.paths[:3])
        raise DataError(f"every row of {where} is without text", found=f"{empty} rows")
    kind, codes = _one_kind(layout.kind for _, layout in tables), np.frombuffer(keys, np.uint64)
    kept = np.sort(np.unique(codes, return_index=True)[1]) if kind == "ranking" else slice(None)
    return Scan(
        tables=tables,
        kind=kind,
        keys=codes[kept],
        groups=np.frombuffer(groups, np.uint64)[kept],
        strata=np.frombuffer(strata, np.int64)[kept],
        seen=seen,
        several=several,
        empty=empty,
    )


def _one_kind(kinds: Iterable[str]) -> str:
    found = set(kinds)
    if len(found) > 1:
        raise DataError("the sets have different kinds of examples", found=", ".join(sorted(found)))
    return found.pop()


def group_of(record: Record) -> str:
    """The user's, or what texts that are all but equal share: letters, without case, digits and signs."""
    if record.group:
        return record.group
    text = record.pair if record.answers and record.pair else record.text or " ".join(record.words)
    return text_key(" ".join(re.findall(r"[^\W\d_]+", text.lower())) or text)[:16]


def record_key(record: Record) -> str:
    """The hash by which two examples count as the same: of what is read, whatever the labels."""
    return text_key("\0".join(texts_of(record)))


def texts_of(record: Record) -> tuple[str, ...]:
    """The texts of an example: what a model reads beside candidates."""
    return tuple(each for each in (record.text, record.pair or "", " ".join(record.words)) if each)


def _code(key: str) -> int:
    return int(key[:16], 16)


# ---------------------------------------------------------------- which rows


def share_out(
    config: RecordData, scans: Mapping[str, Scan]
) -> tuple[dict[str, dict[str, Rows]], dict[str, dict[str, int]]]:
    """Set -> split -> its rows there; and set -> why -> how many rows were left out.

    Test takes first, then select; what they have, in text or group, no other split gets.
    """
    rows: dict[str, dict[str, Rows]] = {}
    dropped: dict[str, dict[str, int]] = {}
    keys, groups = np.empty(0, np.uint64), np.empty(0, np.uint64)
    for name in ("test", "select"):
        if name in scans:
            each = scans[name]
            free = np.flatnonzero(~(np.isin(each.keys, keys) | np.isin(each.groups, groups)))
            if not len(free):
                raise DataError(f"all examples of {name} are in another set too", found=len(each))
            asked = getattr(config, name)
            count = len(free) if asked is None else _number(asked, len(free))
            picked = free[shuffled(each.keys[free], count, config.seed)]
            if asked is not None and len(picked) < count:
                raise DataError(
                    f"too few examples for {name}", found=len(picked), allowed=f"data.{name}={asked:g}"
                )
            rows[name] = {name: picked}
            dropped[name] = {"copies or of other sets": len(each) - len(picked)} if asked is None else {}
            keys, groups = np.union1d(keys, each.keys[picked]), np.union1d(groups, each.groups[picked])
    pool = scans["train"]
    differing = len(np.unique(pool.keys))
    asked_of = {name: _asked(config, name, differing) for name in _CUT if name not in scans}
    exact = {name for name in asked_of if (getattr(config, name) or 0) >= 1}
    found, left_out = cut(pool.keys, pool.groups, pool.strata, asked_of, config.seed, exact, (keys, groups))
    if config.train:
        found["train"] = found["train"][: config.train]
    rows["train"] = found
    dropped["train"] = dict(left_out)
    return rows, {name: why for name, why in dropped.items() if any(why.values())}


def _asked(config: RecordData, name: str, rows: int) -> int:
    asked = getattr(config, name)
    share, most = _CUT[name]
    return _number(asked, rows) if asked is not None else min(most, max(1, round(share * rows)))


def _number(asked: float, rows: int) -> int:
    return max(1, round(asked * rows)) if asked < 1 else int(asked)


# ---------------------------------------------------------------- the second reading


@dataclass(frozen=True)
class Labels:
    kind: str  # of the texts' labels: one, several, value
    numbers: Mapping[str, int] = field(default_factory=dict)  # by the data's name
    names: tuple[str, ...] = ()

    def of(self, example: Example, where: str) -> Record:
        """The record with its labels or tags as numbers."""
        record, names = example.record, example.names
        if record.words:
            return replace(record, tags=tuple(self.numbers[name] for name in names))
        if not names and not example.several:
            return record
        if self.kind == SEVERAL:
            _check_once(names, where)
            having = {self.numbers[name] for name in names}
            return replace(record, labels=tuple(float(k in having) for k in range(len(self.names))))
        if len(names) != 1:
            raise DataError(
                f"{where}: the text has {'several labels' if names else 'no label'}, of which the model "
                "gives one",
                found=", ".join(names)[:200] or "an empty list",
                next="one label a row; a model of several has problem_type multi_label_classification",
            )
        value = value_of(names[0], where) if self.kind == VALUE else float(self.numbers[names[0]])
        return replace(record, labels=(value,))


def _check_once(names: Sequence[str], where: str) -> None:
    """Raise DataError for zeros and ones, one an output, which would be read as names."""
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(
            f"{where}: the text has a label twice",
            found=f"{', '.join(repeated[:12])} in [{', '.join(names)[:80]}]",
            allowed='the labels that the text has, as ["joy", "grief"] or numbers; not a 0 or 1 for each',
        )


def _numbering(config: RecordData, scans: Mapping[str, Scan], outputs: Outputs, kind: str) -> Labels:
    seen: dict[str, str] = {}
    for name in ("test", "select", "train"):
        if name in scans:
            seen = {**scans[name].seen, **seen}
    if kind not in ("text", "tagging") or not seen or (kind == "text" and outputs.kind == VALUE):
        return Labels(VALUE)
    several = any(each.several for each in scans.values())
    if not outputs.names and not (several or config.classes) and are_measured(seen):
        return Labels(VALUE)
    chosen = outputs.kind or (SEVERAL if several else ONE)
    published = _published(scans)
    numbers, names = number_by_name(seen, published, outputs.names, config.classes)
    return Labels(chosen if kind == "text" else ONE, numbers, names)


def _published(scans: Mapping[str, Scan]) -> tuple[str, ...]:
    """Names of the classes as the data set itself lists them; none where it does not."""
    for each in scans.values():
        for table, layout in each.tables:
            column = layout.columns.get("label" if layout.kind == "text" else "tags")
            if column and (names := table.class_names.get(column)):
                return names
    return ()


def read(config: RecordData, found: Scan, splits: Sequence[Rows], labels: Labels) -> list[list[Record]]:
    """The records of these rows, in their order."""
    wanted = set(np.concatenate(list(splits)).tolist())
    records = _queries(found, wanted) if found.kind == "ranking" else _first(found, wanted, labels)
    if len(records) < len(wanted):
        raise DataError("the data changed while it was read", next="run again")
    return [[replace(records[row], group=group_of(records[row])) for row in rows.tolist()] for rows in splits]


def _first(found: Scan, wanted: set[int], labels: Labels) -> dict[int, Record]:
    """Row -> its record; what is behind the last row is not read."""
    records: dict[int, Record] = {}
    for row, (table, example) in enumerate(_again(found)):
        if row in wanted:
            records[row] = labels.of(example, table.at(example.record.line))
            if len(records) == len(wanted):
                break
    return records


def _queries(found: Scan, wanted: set[int]) -> dict[int, Record]:
    """Number of the query -> its record, of all rows that have it."""
    numbers = {int(found.keys[row]): row for row in wanted}
    records: dict[int, Record] = {}
    for _, example in _again(found):
        row = numbers.get(_code(record_key(example.record)))
        if row is not None:
            first = records.get(row)
            records[row] = example.record if first is None else joined(first, example.record)
    return records


def _again(found: Scan) -> Iterator[tuple[Table, Example]]:
    for table, layout in found.tables:
        for example in examples(table, layout):
            if example is not None:
                yield table, example


def drop_nearly_repeated(chosen: dict[str, list[Record]], order: Sequence[str]) -> Counter[str]:
    """Take out of each of these splits, which were cut from one set, what nearly repeats an earlier one."""
    dropped: Counter[str] = Counter()
    before: list[str] = []
    for name in order:
        texts = [" ".join(texts_of(record)) for record in chosen[name]]
        if before:
            similar = nearest(texts, before)
            kept = [record for record, (most, _) in zip(chosen[name], similar, strict=True) if not most]
            dropped[name] = len(texts) - len(kept)
            chosen[name] = kept
        before += texts
    return +dropped


def with_candidates(records: list[Record], count: int) -> list[Record]:
    """The same; a query all of whose passages answer it, which any order gets right, has also those of the
    other queries that BM25 finds, up to `count` passages."""
    found = list(records)
    for start in range(0, len(records), _RANKED):
        part = range(start, min(start + _RANKED, len(records)))
        lacking = [row for row in part if records[row].relevance and min(records[row].relevance) > 0]
        if not lacking:
            continue
        passages = list(dict.fromkeys(text for row in part for text in records[row].candidates))
        most = max(len(records[row].candidates) for row in lacking)
        best = best_passages([records[row].text for row in lacking], passages, count + most)
        for row, ranked in zip(lacking, best.tolist(), strict=True):
            own = records[row].candidates
            others = (passages[i] for i in ranked if passages[i] not in own)
            negatives = [text for text, _ in zip(others, range(count - len(own)), strict=False)]
            gains = records[row].relevance + (0.0,) * len(negatives)
            found[row] = replace(records[row], candidates=(*own, *negatives), relevance=gains)
    return found
