"""Which output of a classifier each class of labelled images is: by name."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from compress.errors import DataError

_PLACEHOLDER = re.compile(r"(?:LABEL_)?(\d+)")  # what transformers and we call outputs that nobody named
_WORDNET = re.compile(r"n\d{8}")
ILSVRC_CLASSES = 1000  # numbered in the order of their WordNet ids


def classes_of(checkpoint: Path) -> tuple[str, ...]:
    """Names of the outputs of a classifier, in their order."""
    named = json.loads((checkpoint / "config.json").read_text("utf-8"))["id2label"]
    return tuple(str(named[key]) for key in sorted(named, key=int))


def output_numbers(
    names: Sequence[str], outputs: Sequence[str], given: Sequence[str] = (), ranked: bool = False
) -> tuple[list[int], tuple[str, ...]]:
    """Of each class of the data the number of the output that is meant, and the names of all outputs.

    `names`: of the data's classes by label, empty where the data has numbers alone. `outputs`: as the model
    names them. `given`: data.classes, what the user calls the classes of data without names, or else the
    outputs. `ranked`: a label is the place of its name in the alphabet, and says nothing.

    Raises DataError, with both lists, where names do not tell which output is which class.
    """
    if given and names:
        _check_given(given, outputs)
        outputs = given
    names = names or given
    if not names:
        return list(range(len(outputs))), tuple(outputs)
    if (found := _by_name(names, outputs) or _by_number(names, outputs)) is not None:
        return found, tuple(outputs)
    counted = len(names) == len(outputs)
    if counted and ranked and len(names) == ILSVRC_CLASSES and all(map(_WORDNET.fullmatch, names)):
        return list(range(len(names))), tuple(outputs)
    if counted and not ranked and _unnamed(outputs):
        return list(range(len(names))), tuple(names)
    order = "in the order of the model's outputs: data.classes=[...]"
    raise DataError(
        "the names of the classes do not tell which output of the model is which",
        found=f"{len(names)} of the data: {_some(names)}",
        allowed=f"{len(outputs)} of the model: {_some(outputs)}",
        next=f"rename the classes of the data as the model's, or name them {order}",
    )


def _check_given(given: Sequence[str], outputs: Sequence[str]) -> None:
    if len(given) != len(outputs):
        raise DataError(
            "data.classes does not name every output of the model",
            found=f"{len(given)}: {_some(given)}",
            allowed=f"{len(outputs)}: {_some(outputs)}",
        )
    if tuple(given) != tuple(outputs) and set(given) == set(outputs):
        raise DataError(
            "data.classes has the model's own names in another order, which would relabel the images",
            found=_some(given),
            allowed=_some(outputs),
            next="leave data.classes empty",
        )


def _by_name(names: Sequence[str], outputs: Sequence[str]) -> list[int] | None:
    """Letter case, spaces, hyphens and underscores aside, where that leaves no doubt."""
    if tuple(names) == tuple(outputs):
        return list(range(len(names)))
    for plain in (str, _plain):
        wanted = [plain(name) for name in outputs]
        sought = [plain(name) for name in names]
        if len(set(sought)) == len(sought) and all(wanted.count(name) == 1 for name in sought):
            return [wanted.index(name) for name in sought]
    return None


def _by_number(names: Sequence[str], outputs: Sequence[str]) -> list[int] | None:
    """Where classes are called by the number of the output, and no output by the number of another."""
    called = (_PLACEHOLDER.fullmatch(name) for name in outputs)
    if any(found and int(found[1]) != number for number, found in enumerate(called)):
        return None
    matched = [_PLACEHOLDER.fullmatch(name) for name in names]
    numbers = [int(found[1]) for found in matched if found]
    whole = len(numbers) == len(names) == len(set(numbers)) and max(numbers) < len(outputs)
    return numbers if whole else None


def _unnamed(outputs: Sequence[str]) -> bool:
    return _by_number(outputs, outputs) == list(range(len(outputs)))


def _some(names: Sequence[str], shown: int = 12) -> str:
    return ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()
