"""A folder in the layout of the Hugging Face hub: files named by split, names of classes beside them.

https://huggingface.co/docs/hub/datasets-file-names-and-splits
"""

import json
import re
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from compress.config.records import RecordFormat, RecordSet
from compress.data.readers import format_of
from compress.errors import DataError

_SPLITS = {
    "train": "train|training",
    "select": "validation|valid|val|dev",
    "test": "test|testing|eval|evaluation",
}
_FACTS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json")


def files_of(path: Path, config: RecordSet, split: str, beside: bool = False) -> list[Path]:
    """The files of `split` behind a source: the file itself, or those that a folder names so.

    With `config.files`, all that fit it, but for train, and `beside` train, those of the split alone. Raises
    DataError where there is none.
    """
    if path.is_file():
        return [path]
    found = {
        each: each.relative_to(path).as_posix()
        for each in sorted(path.rglob("*"))
        if each.is_file() and not each.name.startswith(".") and each.name not in _FACTS
    }
    any_format = config.format is not RecordFormat.auto
    fitting = {
        each: name
        for each, name in found.items()
        if (any_format or format_of(each))
        and fnmatch(name, config.files or "*")
        and not name.lower().startswith(("readme", "license"))
    }
    splits = {each: split_of(name) for each, name in fitting.items()}
    own = [each for each, name in splits.items() if name == split]
    if own and (beside or split == "train" or config.files is None):
        return own
    unnamed = [each for each, name in splits.items() if name is None]
    chosen = unnamed if split == "train" else list(fitting)
    if not chosen:
        raise DataError(
            f"{path} holds no files for {split}",
            found=", ".join(list(found.values())[:12]) or "an empty folder",
            allowed="jsonl, csv, tsv, parquet, json, arff, conll, named by split",
            next=f"name them: 'data.{split}_set.files=part-*.jsonl'",
        )
    return chosen


def also_holds(path: Path, config: RecordSet, split: str) -> bool:
    """Whether the folder of the training set has files of `split` too."""
    if path.is_file():
        return False
    names = (each.relative_to(path).as_posix() for each in path.rglob("*") if each.is_file())
    own = (name for name in names if split_of(name) == split and fnmatch(name, config.files or "*"))
    return any(format_of(Path(name)) for name in own)


def split_of(name: str) -> str | None:
    """The split that a file's name, or else its folder's, has as a word."""
    for part in reversed(Path(name).parts):
        for split, words in _SPLITS.items():
            if re.search(rf"(?:^|[\W_\d])(?:{words})(?:[\W_\d]|$)", part.lower()):
                return split
    return None


def class_names(folder: Path) -> dict[str, tuple[str, ...]]:
    """Column -> names of its classes by number, as dataset_info.json or the card (README.md) tells them."""
    found: dict[str, tuple[str, ...]] = {}
    for features in (*_of_json(folder), *_of_card(folder)):
        for column, feature in features.items():
            if names := names_of(feature):
                found.setdefault(column, names)
    return found


def names_of(feature: Any) -> tuple[str, ...]:
    """Names by number out of a feature, or what a list of such features tells; none of others."""
    if isinstance(feature, list) and len(feature) == 1:
        return names_of(feature[0])
    if not isinstance(feature, Mapping):
        return ()
    names = feature.get("names")
    if isinstance(names, Mapping):
        return tuple(str(names[key]) for key in sorted(names, key=int))
    if isinstance(names, list):
        return tuple(map(str, names))
    for inner in ("feature", "class_label", "dtype", "sequence", "list"):
        if inner in feature and (found := names_of(feature[inner])):
            return found
    return ()


def _of_json(folder: Path) -> list[Mapping[str, Any]]:
    found = []
    for name in ("dataset_info.json", "dataset_infos.json"):
        try:
            content = json.loads((folder / name).read_text("utf-8"))
        except (OSError, ValueError):
            continue
        infos = [content] if "features" in content else list(content.values())
        found += [each["features"] for each in infos if isinstance(each, Mapping) and each.get("features")]
    return found


def _of_card(folder: Path) -> list[Mapping[str, Any]]:
    try:
        head = re.match(r"---\n(.*?)\n---", (folder / "README.md").read_text("utf-8"), re.DOTALL)
        content = yaml.safe_load(head[1]) if head else {}
    except (OSError, ValueError, yaml.YAMLError):
        return []
    infos = content.get("dataset_info", []) if isinstance(content, Mapping) else []
    infos = infos if isinstance(infos, list) else [infos]
    return [
        {each["name"]: each for each in info["features"] if "name" in each}
        for info in infos
        if isinstance(info, Mapping) and isinstance(info.get("features"), list)
    ]
