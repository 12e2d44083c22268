"""What the labels of texts are to a model: numbers of its outputs, a 0 or 1 for each, or values."""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from compress.data.class_names import classes_of, output_numbers
from compress.errors import DataError, did_you_mean

ONE, SEVERAL, VALUE = "one", "several", "value"


@dataclass(frozen=True)
class Outputs:
    """Of the model that the data is for. `kind` is of its labels: None where there is no model."""

    names: tuple[str, ...]
    kind: str | None


_PROBLEMS = {
    "regression": VALUE,
    "multi_label_classification": SEVERAL,
    "single_label_classification": ONE,
}


def outputs_of(checkpoint: Path | None) -> Outputs:
    """No names where there is no model, or none with outputs of classes. The kind is that which transformers'
    pipelines read; raises DataError for several values a text, which no data here has."""
    if checkpoint is None:
        return Outputs((), None)
    config = json.loads((checkpoint / "config.json").read_text("utf-8"))
    names = classes_of(checkpoint) if config.get("id2label") else ()
    kind = VALUE if len(names) == 1 else _PROBLEMS.get(config.get("problem_type"), ONE)
    if kind == VALUE and len(names) > 1:
        raise DataError(
            "the model gives several values, and the label of a text is one",
            found=f"problem_type regression, {len(names)} outputs: {', '.join(names)[:200]}",
            next="where they are classes, correct problem_type in the model's config.json",
        )
    return Outputs(names, kind)


def number_by_name(
    seen: Mapping[str, str], published: Sequence[str], outputs: Sequence[str], given: Sequence[str]
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Name of a label in the data -> number of the output that is meant; and the names of all outputs.

    `seen`: name -> where it first stands (file:line). `published`: names that the data set itself lists, in
    their order. `outputs` of the model, none without one. `given`: data.classes.

    Raises DataError, with the line, for a label that the model does not know.
    """
    names = tuple(published) if set(seen) <= set(published) else tuple(sorted(seen, key=_rank))
    if not outputs:
        outputs = tuple(given) or names
        given = ()
    _check_known(seen, tuple(given) or tuple(outputs))
    numbers, found = output_numbers(names, outputs, given, ranked=not published and not _numbered(names))
    return dict(zip(names, numbers, strict=True)), found


def _check_known(seen: Mapping[str, str], outputs: Sequence[str]) -> None:
    """Where none of the labels is known, they are other names, which `output_numbers` tells."""
    known = {name.casefold().replace("_", " ").replace("-", " ") for name in outputs}
    strange = [name for name in seen if name.casefold().replace("_", " ").replace("-", " ") not in known]
    if strange and len(strange) < len(seen):
        raise DataError(
            f"{seen[strange[0]]}: the model does not know the label {strange[0]!r}",
            found=f"{len(strange)} such labels: {', '.join(strange[:12])}",
            allowed=did_you_mean(strange[0], outputs)[:400],
            next="correct the label or remove its rows; data.classes=[...] is what the data calls the "
            "model's outputs, in their order",
        )


def _rank(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdecimal() else (-1, name)


def _numbered(names: Sequence[str]) -> bool:
    return all(name.isdecimal() for name in names)


def are_measured(names: Collection[str]) -> bool:
    """Whether labels are values and no names of classes: all are numbers, and some have a fraction."""
    numbers = [_number(name) for name in names]
    return all(math.isfinite(each) for each in numbers) and any(each % 1 for each in numbers)


def _number(name: str) -> float:
    try:
        return float(name)
    except ValueError:
        return math.nan


def value_of(name: str, where: str) -> float:
    """Raises DataError for what is no finite number."""
    value = _number(name)
    if not math.isfinite(value):
        raise DataError(
            f"{where}: the model gives a value, and the label is no number", found=name[:60], allowed="3.5"
        )
    return value


def balanced_weights(counts: Sequence[int]) -> tuple[float, ...]:
    """A weight a class by which each weighs the same in a loss: n / (classes * count of the class), as
    scikit-learn's `balanced` (King & Zeng 2001); 0 for one without examples."""
    present = sum(count > 0 for count in counts)
    return tuple(sum(counts) / (present * count) if count else 0.0 for count in counts)
