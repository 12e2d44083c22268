"""Texts to numbers of tokens by tokenizer.json: as transformers does it, without loading it or torch."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray

from compress.errors import ModelError
from compress.models.checkpoint import read_json

Ints = NDArray[np.int64]
Text = str | tuple[str, str]  # a text, or two that are read together
_PROBES = ("A cat sits on the mat.", "  The QUICK brown\tfox, jumps: 'over' 3 dogs!", "Ünïcode — 日本語 …")
# What transformers takes back of the spaces that a tokenizer of words puts before punctuation.
_SPACES = (" .", " ?", " !", " ,", " n't", " 'm", " 's", " 've", " 're")


@dataclass(frozen=True, slots=True)
class Tokens:
    """Of one text, or of two that are read together."""

    ids: list[int]
    types: list[int]  # 1 where a token is of the second text, of models that are told
    label: tuple[float, ...] = ()  # what the model is to answer, where that is known
    query: int | None = None  # of pairs that are ranked: the same for all of a query

    def __len__(self) -> int:
        return len(self.ids)


class Tokenizer:
    """The tokenizer of a checkpoint folder."""

    def __init__(self, folder: Path) -> None:
        """Raises ModelError where the folder has no tokenizer.json that can be read."""
        path = folder / "tokenizer.json"
        try:
            self._backend = tokenizers.Tokenizer.from_file(str(path))
            self._backend.encode("a \U0010fffd")  # what it lacks it tells then, some by no Exception
        except BaseException as error:  # tokenizers raises nothing more specific
            if isinstance(error, KeyboardInterrupt):
                raise
            raise ModelError(
                f"no usable tokenizer in {folder}",
                found=str(error).splitlines()[0] if path.is_file() else "no tokenizer.json",
                allowed="tokenizer.json with tokenizer_config.json",
            ) from None
        self._backend.no_padding()
        self._backend.no_truncation()
        self.folder = folder
        self.settings = tokenizer_settings(folder)

    @property
    def max_length(self) -> int:
        """Tokens that the model was made for, by tokenizer_config.json; very many where it does not say."""
        return int(self.settings.get("model_max_length") or 1e30)

    @property
    def pad_token(self) -> str | None:
        """What fills up."""
        return _content(self.settings.get("pad_token"))

    @property
    def pads_left(self) -> bool:
        """Whether texts are filled up at their beginning."""
        return bool(self.settings.get("padding_side") == "left")

    @property
    def cuts_left(self) -> bool:
        """Whether long texts lose their beginning."""
        return bool(self.settings.get("truncation_side") == "left")

    @property
    def tells_types(self) -> bool:
        """Whether models are told which of two texts a token is of, where they can be."""
        return "token_type_ids" in self.settings.get("model_input_names", ["token_type_ids"])

    @property
    def pad_id(self) -> int:
        """Number of the token that fills up; raises ModelError where there is none."""
        name = self.pad_token
        number = None if name is None else self._backend.token_to_id(name)
        if number is None:
            raise ModelError(
                f"the tokenizer in {self.folder} cannot pad",
                found="no pad token",
                next="name one in tokenizer_config.json",
            )
        return int(number)

    def check_known(self, vocabulary: int) -> None:
        """Raise ModelError where it has tokens that a model of so many does not know."""
        largest = max(self._backend.get_vocab(with_added_tokens=True).values(), default=0)
        if largest >= vocabulary:
            raise ModelError(
                f"the tokenizer in {self.folder} has tokens that the model does not know",
                found=f"token {largest}",
                allowed=f"numbers below vocab_size, {vocabulary}",
                next="fetch model and tokenizer of one revision",
            )

    def encodings(
        self, texts: Sequence[Text], max_length: int, cut: str = "longest_first", stride: int = 0
    ) -> list[Any]:
        """What the library tokenizers says of each, at most `max_length` tokens with the marks around them.

        `cut`: which of two texts loses tokens, longest_first or only_second; what was cut off is in
        `overflowing`, piece by piece, each with the last `stride` tokens of the one before.
        """
        direction = "left" if self.cuts_left else "right"
        self._backend.enable_truncation(max_length, stride=stride, strategy=cut, direction=direction)
        try:
            return list(self._backend.encode_batch(list(texts)))
        finally:
            self._backend.no_truncation()

    def encode(self, texts: Sequence[str], max_length: int) -> list[list[int]]:
        """Numbers of each text's tokens, at most `max_length` with the marks of its beginning and end."""
        return [encoding.ids for encoding in self.encodings(texts, max_length)]

    def filled(self, rows: Sequence[Sequence[float]], fill: float, kind: type = np.int64) -> NDArray[Any]:
        """[rows, longest row], the shorter ones filled up on the side that the tokenizer names."""
        width = max(map(len, rows))
        array: NDArray[Any] = np.full((len(rows), width), fill, kind)
        for number, row in enumerate(rows):
            array[number, width - len(row) if self.pads_left else 0 :][: len(row)] = row
        return array

    def padded(self, rows: Sequence[Sequence[int]]) -> tuple[Ints, Ints]:
        """Tokens and attention mask [rows, longest row]; the mask is 0 where a row was filled up."""
        return self.filled(rows, self.pad_id), self.filled([[1] * len(row) for row in rows], 0)

    def plain(self, text: str) -> list[int]:
        """Numbers of a text's tokens without the marks of a beginning or an end."""
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def with_ends(self, text: str) -> tuple[list[int], list[int]]:
        """Like `plain`, and the character behind each token."""
        encoding = self._backend.encode(text, add_special_tokens=False)
        return encoding.ids, [end for _, end in encoding.offsets]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these tokens, marks left out."""
        text: str = self._backend.decode(list(ids), skip_special_tokens=True)
        if self.settings.get("clean_up_tokenization_spaces"):
            text = text.replace(" ' ", "'")
            for spaced in _SPACES:
                text = text.replace(spaced, spaced[1:])
        return text


def complete(folder: Path) -> None:
    """Write tokenizer.json into a checkpoint that has only older forms of it, or whose tokenizer_config.json
    changes what it says, so that `Tokenizer` reads what transformers would.

    Raises ModelError where transformers has no tokenizer for the folder, or only one in Python.
    """
    import transformers

    try:
        stock: Any = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        if len(stock) <= len(set(stock.all_special_ids)):  # what transformers makes of no files at all
            raise ValueError("no vocabulary")
    except Exception as error:  # the library tokenizers raises nothing narrower
        raise ModelError(
            f"no usable tokenizer in {folder}",
            found=(str(error) or type(error).__name__).splitlines()[0],
            allowed="tokenizer.json with tokenizer_config.json, or a vocabulary transformers knows",
        ) from None
    try:
        same = _same(folder, stock)
        if not same:
            stock.save_pretrained(folder)
            same = _same(folder, stock)
    except Exception as error:  # likewise, of a tokenizer whose mark for the unknown is no piece of its
        raise ModelError(
            f"the tokenizer in {folder} fails on plain text",
            found=(str(error) or type(error).__name__).splitlines()[0],
            allowed="one that reads any text",
            next="fetch the tokenizer's files again, of one revision",
        ) from None
    if not same:
        raise ModelError(
            f"the tokenizer in {folder} has no fast form that encodes alike",
            found=type(stock).__name__,
            allowed="one that tokenizer.json can describe",
        )


def leave_length_alone(folder: Path) -> None:
    """Take truncation and padding out of tokenizer.json, where trainers leave them: whoever opens the file
    without transformers would cut and fill up texts by them. The sides, and the token that fills up, stay in
    tokenizer_config.json."""
    path = folder / "tokenizer.json"
    content, backend = read_json(path), tokenizers.Tokenizer.from_file(str(path))
    truncation, padding = backend.truncation, backend.padding
    if not truncation and not padding:
        return
    path.write_text(json.dumps({**content, "truncation": None, "padding": None}, ensure_ascii=False), "utf-8")
    kept = {}
    if truncation:
        kept["truncation_side"] = truncation["direction"]
    if padding:
        kept |= {"padding_side": padding["direction"], "pad_token": padding["pad_token"]}
    config = folder / "tokenizer_config.json"
    settings = {**kept, **(read_json(config) if config.is_file() else {})}
    config.write_text(json.dumps(settings, indent=2, ensure_ascii=False), "utf-8")


def lower_first(folder: Path) -> None:
    """Have tokenizer.json lower texts before all that it does, as sentence-transformers does it for its
    `do_lower_case`; nothing where it does already."""
    path = folder / "tokenizer.json"
    content = read_json(path)
    given = content.get("normalizer")
    steps = given["normalizers"] if given and given["type"] == "Sequence" else [given] if given else []
    if not any(step["type"] == "Lowercase" for step in steps):
        content["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, *steps]}
        path.write_text(json.dumps(content, ensure_ascii=False), "utf-8")


def pads_left(folder: Path) -> bool:
    """Whether texts of this folder are filled up at their beginning."""
    return bool(tokenizer_settings(folder).get("padding_side") == "left")


def _same(folder: Path, stock: Any) -> bool:
    try:
        own = Tokenizer(folder)
    except ModelError:
        return False
    pad = stock.pad_token_id if _content(own.settings.get("pad_token")) is None else own.pad_id
    pairs = [each.ids for each in own.encodings([_PROBES[:2]], 99)]
    ids = [own.encode(_PROBES, 12), [own.plain(text) for text in _PROBES], pairs]
    return pad == stock.pad_token_id and ids == [
        stock(list(_PROBES), truncation=True, max_length=12)["input_ids"],
        stock(list(_PROBES), add_special_tokens=False)["input_ids"],
        stock([_PROBES[0]], [_PROBES[1]])["input_ids"],
    ]


def tokenizer_settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json; its special tokens also from the file that older releases wrote them to."""
    files = [folder / name for name in ("special_tokens_map.json", "tokenizer_config.json")]
    named = [read_json(path) for path in files if path.is_file()]
    return {key: value for content in named for key, value in content.items() if value is not None}


def chat_template(folder: Path) -> str | None:
    """That of a tokenizer's folder, of several the one that is called default; None where there is none."""
    path = folder / "chat_template.jinja"
    found: Any = (
        path.read_text("utf-8") if path.is_file() else tokenizer_settings(folder).get("chat_template")
    )
    if isinstance(found, list):  # of several, as earlier releases of transformers wrote them
        found = next((each["template"] for each in found if each["name"] == "default"), None)
    return found or None


def _content(token: Any) -> str | None:
    """The text of a special token, which may be described by an object."""
    return token.get("content") if isinstance(token, dict) else token
