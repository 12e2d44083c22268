"""Which rows of a set of any size go to which split: pure, and the same for the same seed and rows.

Rows are known by numbers alone, eight bytes each, so that ten million of them fit.
"""

from collections import Counter
from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from compress.errors import DataError

Codes = NDArray[np.uint64]
Rows = NDArray[np.int64]


def cut(
    keys: Codes,
    groups: Codes,
    strata: NDArray[np.int64],
    asked: Mapping[str, int],
    seed: int,
    exact: Collection[str] = (),
    taken: tuple[Codes, Codes] | None = None,
) -> tuple[dict[str, Rows], Counter[str]]:
    """Split -> its rows; also how many rows were left out, by why.

    `keys` [rows]: equal ones are the same text. `groups` [rows]: rows of one go to one split. `strata`
    [rows]: labels, of which every split has its share. `asked`: numbers of rows, 1 or more, in the order in
    which the splits take; a split takes whole groups, of the last one as many rows as it lacks where it is
    named in `exact` or would have twice as many otherwise. `taken`: keys and groups that other splits have.

    Raises DataError where there are fewer rows than asked for, or where one group has them all.
    """
    dropped: Counter[str] = Counter()
    kept = np.sort(np.unique(keys, return_index=True)[1])
    dropped["copies"] = len(keys) - len(kept)
    if taken is not None:
        free = ~(np.isin(keys[kept], taken[0]) | np.isin(groups[kept], taken[1]))
        dropped["of other sets"] = int((~free).sum())
        kept = kept[free]
    first, group_of, sizes = _grouped(groups[kept])
    order = _order(groups[kept][first], strata[kept][first], seed)
    by_group = np.argsort(np.argsort(order)[group_of], kind="stable")  # rows, in the order of their groups
    rows, ends = kept[by_group], np.cumsum(sizes[order])
    chosen: dict[str, Rows] = {}
    start = 0
    for name, count in asked.items():
        if start + count > len(rows):
            raise DataError(
                f"too few examples for {name}",
                found=f"{len(rows) - start} left of {len(kept)} that differ",
                allowed=f"data.{name}={count}",
                next=f"lower data.{name} or what is taken before it, or add examples",
            )
        if ends[np.searchsorted(ends, start, side="right")] == len(rows):
            if len(ends) == len(rows):
                raise DataError(
                    "too few examples: none would be left to train on",
                    found=f"{len(rows)} that differ",
                    allowed=f"more than {sum(asked.values())}: {_told(asked)}",
                    next="add examples",
                )
            raise DataError(
                f"one group has all examples that are left for {name}",
                found=f"{len(ends)} groups of {len(rows)} examples",
                next="group by another column: data.group=...",
            )
        end = int(ends[np.searchsorted(ends, start + count, side="left")])
        chosen[name] = rows[start : start + count if name in exact or end > start + 2 * count else end]
        dropped["rest of a group"] += end - start - len(chosen[name])
        start = end
    chosen["train"] = rows[start:]
    return {name: each[np.argsort(_mix(keys[each], seed + 1))] for name, each in chosen.items()}, +dropped


def _told(asked: Mapping[str, int]) -> str:
    return ", ".join(f"{count} of {name}" for name, count in asked.items())


def shuffled(keys: Codes, count: int, seed: int) -> Rows:
    """`count` rows that differ, drawn by a hash, in the order of the file."""
    kept = np.sort(np.unique(keys, return_index=True)[1])
    return np.sort(kept[np.argsort(_mix(keys[kept], seed))[:count]])


def _grouped(groups: Codes) -> tuple[Rows, Rows, Rows]:
    """Of every group its first row and its size; of every row its group."""
    _, first, inverse, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    return first, inverse, sizes


def _order(groups: Codes, strata: NDArray[np.int64], seed: int) -> Rows:
    """An order of the groups whose every beginning has of every stratum its share.

    The k-th of the n groups of a stratum, in the order of a hash, comes at (k + 1/2) / n.
    """
    code = _mix(groups, seed)
    by_stratum = np.lexsort((code, strata))
    _, starts, counts = np.unique(strata[by_stratum], return_index=True, return_counts=True)
    rank = np.arange(len(groups)) - np.repeat(starts, counts)
    place = np.empty(len(groups))
    place[by_stratum] = (rank + 0.5) / np.repeat(counts, counts)
    return np.lexsort((code, place))


def _mix(codes: Codes, seed: int) -> Codes:
    """Scrambled bits, others for another seed (the finaliser of SplitMix64, Steele et al. 2014)."""
    x = codes + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray(x ^ (x >> np.uint64(31)))
