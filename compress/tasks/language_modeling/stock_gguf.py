"""What a GGUF file holds, by its own library and the architectures as published: a script of
compress.tasks.reading, which needs no other file of this package.

Tensors are dequantized by the library `gguf`. The forward pass is numpy's, layer by layer, after the papers
(RMS norm, grouped queries, RoPE, gated feed-forward parts) and llama.cpp's conventions; tokens are its
algorithms in plain Python. Slow, and it shares no line with what it is held against.
"""

import heapq
import itertools
import json
import math
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import jinja2
import numpy as np
import regex  # type: ignore[import-untyped]
from transformers.utils.chat_template_utils import render_jinja_template

Array = Any  # of numpy


def read(published: str, probes: dict[str, Any]) -> dict[str, Array]:
    """tokens/NAME: numbers (tokens) of a text without marks, and of others with those of texts and chats;
    outputs/NAME: logits (8, vocabulary) of the last of `probes["ids"]`, at `probes["positions"]`;
    ends/NAME: numbers, sorted."""
    model = _File(published)
    tokenize = (
        _Bytes(model.metadata)
        if model.metadata["tokenizer.ggml.model"] == "gpt2"
        else _Pieces(model.metadata)
    )
    found = {"library": np.array("gguf with numpy")}
    for name, text in probes["texts"].items():
        found[f"tokens/{name}"] = np.array(tokenize(text), np.int64)
    for name, text in probes["with_marks"].items():
        found[f"tokens/{name}"] = np.array(tokenize.with_marks(text), np.int64)
    if "tokenizer.chat_template" in model.metadata:
        for name, text in probes["chats"].items():
            found[f"tokens/{name}"] = np.array(tokenize(_chat(model.metadata, text)), np.int64)
    positions = {name: np.array(each) for name, each in probes["positions"].items()}
    logits = _logits(model, {name: np.array(ids) for name, ids in probes["ids"].items()}, positions)
    found |= {f"outputs/{name}": each for name, each in logits.items()}
    found["ends/of what is generated"] = np.array(sorted(_ends(model.metadata)), np.int64)
    return found


class _File:
    def __init__(self, path: str) -> None:
        reader = gguf.GGUFReader(path)
        self.metadata: dict[str, Any] = {name: field.contents() for name, field in reader.fields.items()}
        self.tensors = {tensor.name: tensor for tensor in reader.tensors}
        self.dense: dict[str, Array] = {}  # those of the layer that is computed
        self.architecture = self.metadata["general.architecture"]

    def key(self, name: str, default: Any = None) -> Any:
        value = self.metadata.get(f"{self.architecture}.{name}", default)
        return value[0] if isinstance(value, list) else value

    def __getitem__(self, name: str) -> Array:
        if name not in self.dense:
            tensor = self.tensors[name]
            shape = [int(size) for size in reversed(tensor.shape)]
            self.dense[name] = (
                gguf.dequantize(tensor.data, tensor.tensor_type).reshape(shape).astype(np.float32)
            )
        return self.dense[name]

    def times(self, x: Array, name: str) -> Array:
        """Product with the matrix `name`, plus its bias where there is one."""
        found = x @ self[f"{name}.weight"].T
        return found + self[f"{name}.bias"] if f"{name}.bias" in self.tensors else found


# ---------------------------------------------------------------- logits


def _logits(model: _File, ids: dict[str, Array], positions: dict[str, Array]) -> dict[str, Array]:
    """(8, vocabulary) behind the last of `ids` (tokens) at `positions`, without anything before them."""
    embedding = model["token_embd.weight"]
    scale = math.sqrt(embedding.shape[1]) if model.architecture == "gemma3" else 1
    states = {name: embedding[each] * np.float32(scale) for name, each in ids.items()}
    for layer in range(model.key("block_count")):
        model.dense.clear()
        states = {name: _layer(model, layer, x, positions[name]) for name, x in states.items()}
    head = model["output.weight"] if "output.weight" in model.tensors else embedding
    logits = {name: _norm(model, x[-8:], "output_norm") @ head.T for name, x in states.items()}
    cap = model.key("final_logit_softcapping", 0)
    return {name: cap * np.tanh(x / cap) for name, x in logits.items()} if cap else logits


def _layer(model: _File, layer: int, x: Array, positions: Array) -> Array:
    gemma, block = model.architecture == "gemma3", f"blk.{layer}"
    attended = _attention(model, layer, _norm(model, x, f"{block}.attn_norm"), positions)
    x = x + (_norm(model, attended, f"{block}.post_attention_norm") if gemma else attended)
    into = _norm(model, x, f"{block}.ffn_norm")
    if model.architecture == "phi3":
        gate, up = np.split(model.times(into, f"{block}.ffn_up"), 2, axis=-1)
    else:
        gate, up = model.times(into, f"{block}.ffn_gate"), model.times(into, f"{block}.ffn_up")
    out = model.times((_gelu(gate) if gemma else gate / (1 + np.exp(-gate))) * up, f"{block}.ffn_down")
    return x + (_norm(model, out, f"{block}.post_ffw_norm") if gemma else out)


def _attention(model: _File, layer: int, x: Array, positions: Array) -> Array:
    block, heads = f"blk.{layer}", model.key("attention.head_count")
    shared = model.key("attention.head_count_kv", heads)
    size = model.key("attention.key_length", model.key("embedding_length") // heads)
    if f"{block}.attn_qkv.weight" in model.tensors:
        whole = model.times(x, f"{block}.attn_qkv")
        q, k, v = np.split(whole, [heads * size, (heads + shared) * size], axis=-1)
    else:
        q, k, v = (model.times(x, f"{block}.attn_{part}") for part in "qkv")
    q, k, v = (each.reshape(len(x), -1, size).swapaxes(0, 1) for each in (q, k, v))  # heads, tokens, size
    if f"{block}.attn_q_norm.weight" in model.tensors:
        q, k = _norm(model, q, f"{block}.attn_q_norm"), _norm(model, k, f"{block}.attn_k_norm")
    sees_all = model.architecture != "gemma3" or not _has_window(model, layer)
    if model.architecture != "smollm3" or (layer + 1) % 4:
        q, k = (_rotated(model, each, positions, size, sees_all) for each in (q, k))
    scale = 1 / math.sqrt(size)
    if model.architecture == "gemma3" and model.key("block_count") == 62:
        scale = 1 / math.sqrt(model.key("embedding_length") / heads)
    distance = positions[:, None] - positions[None, :]
    seen = distance >= 0
    window = model.key("attention.sliding_window", 0)
    if window and (model.architecture == "phi3" or not sees_all):
        seen &= distance < window
    out = np.empty_like(q)
    for head in range(heads):
        source = head // (heads // shared)
        scores = np.where(seen, q[head] @ k[source].T * np.float32(scale), -np.inf)
        likely = np.exp(scores - scores.max(-1, keepdims=True))
        out[head] = likely / likely.sum(-1, keepdims=True) @ v[source]
    return model.times(out.swapaxes(0, 1).reshape(len(x), -1), f"{block}.attn_output")


def _has_window(model: _File, layer: int) -> bool:
    """Of Gemma 3: of so many layers all but the last, or, where the file has a list, those it names."""
    told = model.metadata.get("gemma3.attention.sliding_window_pattern", 6)
    return bool(told[layer] if isinstance(told, list) else not told or (layer + 1) % told)


def _rotated(model: _File, x: Array, positions: Array, size: int, sees_all: bool) -> Array:
    """x (heads, tokens, size), of which llama.cpp rotates `rope.dimension_count` channels."""
    count = model.key("rope.dimension_count", size)
    angles, scale = _angles(model, positions, count, sees_all)
    cos, sin = (np.float32(scale) * each(angles).astype(np.float32) for each in (np.cos, np.sin))
    out = x.copy()
    if model.architecture in ("llama", "smollm3"):  # pairs beside each other, else halves
        one, other = slice(0, count, 2), slice(1, count, 2)
    else:
        one, other = slice(0, count // 2), slice(count // 2, count)
    out[..., one] = x[..., one] * cos - x[..., other] * sin
    out[..., other] = x[..., other] * cos + x[..., one] * sin
    return out


def _angles(model: _File, positions: Array, count: int, sees_all: bool) -> tuple[Array, float]:
    """Angles (tokens, count / 2), and what cosines and sines are multiplied by: `ggml_rope_ext`."""
    if not sees_all:
        base = model.key("rope.freq_base_swa", 10000.0)
        return _turned(positions, 1 / base ** (np.arange(0, count, 2) / count)), 1.0
    base, context = model.key("rope.freq_base", 10000.0), model.key("context_length")
    original = model.key("rope.scaling.original_context_length", context)
    pace = 1 / base ** (np.arange(0, count, 2) / count)
    if "rope_freqs.weight" in model.tensors:
        pace = pace / model["rope_freqs.weight"]
    elif "rope_factors_long.weight" in model.tensors:
        length = "long" if positions.max() + 1 > original else "short"
        pace = pace / model[f"rope_factors_{length}.weight"]
    kind = model.key("rope.scaling.type", "linear")
    factor = model.key("rope.scaling.factor", 0) or model.key("rope.scale_linear", 0) or 1.0
    scale = model.key("rope.scaling.attn_factor", 1.0)
    if kind == "linear":
        pace = pace / factor
    elif kind == "yarn":
        ends = [model.key("rope.scaling.yarn_beta_fast", 32.0), model.key("rope.scaling.yarn_beta_slow", 1.0)]
        turns = [count * math.log(original / (n * 2 * math.pi)) / (2 * math.log(base)) for n in ends]
        low, high = max(0, math.floor(turns[0])), min(count - 1, math.ceil(turns[1]))
        ramp = np.clip((np.arange(count // 2) - low) / max(0.001, high - low), 0, 1)
        pace = pace / factor * ramp + pace * (1 - ramp)
        scale *= model.key("rope.scaling.yarn_attn_factor", 1.0) * (1 + 0.1 * math.log(factor))
    return _turned(positions, pace), scale


def _turned(positions: Array, pace: Array) -> Array:
    """Angles in float32, as all have them who run these models: far out, their rounding is part of them."""
    return positions.astype(np.float32)[:, None] * pace.astype(np.float32)


def _norm(model: _File, x: Array, name: str) -> Array:
    squares = np.mean(np.square(x, dtype=np.float64), -1, keepdims=True)
    root = np.sqrt(squares + model.key("attention.layer_norm_rms_epsilon"))
    return (x / root).astype(np.float32) * model[f"{name}.weight"]


def _gelu(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


# ---------------------------------------------------------------- tokens

# llama-vocab.cpp: expressions by the name of tokenizer.ggml.pre, applied one after the other
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_SHORT = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_LLAMA3 = _SHORT + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_QWEN2 = _SHORT + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+END"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*END"
    r"|NUMBERS| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN = _CASED.replace("END", "").replace("NUMBERS", r"\p{N}")
_GPT4O = _CASED.replace("END", f"{_SHORT}?").replace("NUMBERS", r"\p{N}{1,3}")
_CUTS = {
    (_GPT2,): "gpt-2 phi-2 mpt olmo jais trillion mellum a.x-4.0",
    (r"\p{N}", _GPT2): "smollm starcoder refact command-r codeshell exaone minerva-7b",
    (_LLAMA3,): "llama-bpe llama3 llama-v3 falcon3 pixtral midm-2.0 dbrx smaug-bpe",
    (_QWEN2,): "qwen2 deepseek-r1-qwen",
    (_TEKKEN,): "tekken",
    (_GPT4O,): "gpt-4o llama4 kanana2",
}
_WHOLE_WORDS = ["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "midm-2.0", "tekken"]


def _chat(metadata: dict[str, Any], text: str) -> str:
    """What a user says, up to where the answer begins; nothing where the template refuses that."""
    marks = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    numbers = {name: _number(metadata, key) for name, key in marks.items()}
    tokens = metadata["tokenizer.ggml.tokens"]
    try:
        [told], _ = render_jinja_template(
            [[{"role": "user", "content": text}]],
            chat_template=metadata["tokenizer.chat_template"],
            add_generation_prompt=True,
            **{f"{name}_token": tokens[each] for name, each in numbers.items() if each is not None},
        )
    except jinja2.TemplateError:
        return ""
    return str(told)


def _number(metadata: dict[str, Any], name: str) -> int | None:
    """Of the token for `name`; that above all others stands for none."""
    number = metadata.get(f"tokenizer.ggml.{name}_token_id")
    return None if number in (-1, 2**32 - 1) else number


# llama-vocab.cpp ends what is generated at tokens with these texts, whatever their type
_TURNS = "<|eot_id|> <|im_end|> <|end|> <end_of_turn> <EOT> _<EOT> [EOT] <end_of_utterance> <turn|> [e~["
_TEXTS = "<|endoftext|> <|end_of_text|> </s> <eos> [EOS] <｜end▁of▁sentence｜>"
_TOOLS = "<|eom_id|> <|return|> <|call|> <|calls|> <|flush|> <|tool_response>"
_CODE = {
    "fim_pad": "<|fim_pad|> <fim-pad> <fim_pad> <PAD> [PAD]",
    "fim_rep": "<|fim_repo|> <|repo_name|> <fim-repo> <REPO> <reponame>",
    "fim_sep": "<|file_sep|>",
}


def _ends(metadata: dict[str, Any]) -> set[int]:
    """Numbers of tokens."""
    tokens = metadata["tokenizer.ggml.tokens"]
    found = {_number(metadata, name) for name in ("eos", "eot", "eom", *_CODE)}
    texts = _texts_of_ends(metadata)
    ends = {n for n, token in enumerate(tokens) if n in found or token in texts}
    said = {tokens[n] for n in ends}
    if said & {"<|call|>", "<|calls|>"} and said & {"<|return|>", "<|flush|>"}:
        ends = {n for n in ends if tokens[n] != "<|end|>"}
    return {n for n in ends if tokens[n] != "</s>"} if "<|tool_response>" in said else ends


def _texts_of_ends(metadata: dict[str, Any]) -> set[str]:
    code = (some for name, some in _CODE.items() if _number(metadata, name) is None)
    return {*" ".join([_TURNS, _TEXTS, _TOOLS, *code]).split()}


class _Tokens:
    """Tokens of a text between marks, which stay whole."""

    def __init__(self, metadata: dict[str, Any]) -> None:
        self.metadata = metadata
        self.numbers = {token: number for number, token in enumerate(metadata["tokenizer.ggml.tokens"])}
        kinds = metadata.get("tokenizer.ggml.token_type", ())
        marks = {token for token, kind in zip(self.numbers, kinds, strict=False) if kind in (2, 3, 4)}
        marks |= _texts_of_ends(metadata) & {*self.numbers}
        self.marks = sorted(marks, key=len, reverse=True)

    def __call__(self, text: str) -> list[int]:
        found: list[int] = []
        for part, is_mark in self._parts(text):
            found += [self.numbers[part]] if is_mark else self.tokens(part)
        return found

    def with_marks(self, text: str) -> list[int]:
        begin, end = (_number(self.metadata, name) for name in ("bos", "eos"))
        pieces = self.metadata["tokenizer.ggml.model"] == "llama"
        begins = pieces or self.metadata.get("tokenizer.ggml.pre") in _WHOLE_WORDS
        begins = self.metadata.get("tokenizer.ggml.add_bos_token", begins)
        ends = self.metadata.get("tokenizer.ggml.add_eos_token", False)
        first = [begin] if begins and begin is not None else []
        last = [end] if ends and end is not None else []
        return [*first, *self(text), *last]

    def _parts(self, text: str) -> Iterator[tuple[str, bool]]:
        """The longest marks are cut out first, everywhere."""
        parts = [(text, False)]
        for mark in self.marks:
            if mark not in text:
                continue
            cut: list[tuple[str, bool]] = []
            for part, is_mark in parts:
                pieces = [part] if is_mark else part.split(mark)
                for number, piece in enumerate(pieces):
                    if number:
                        cut.append((mark, True))
                    cut.append((piece, is_mark))
            parts = cut
        if (
            self.metadata["general.architecture"] == "phi3"
            and self.metadata["tokenizer.ggml.model"] == "llama"
        ):
            keep = ("<unk>", "<s>", "<|endoftext|>")
            for i in range(1, len(parts)):
                if parts[i - 1][1] and parts[i - 1][0] not in keep and not parts[i][1]:
                    parts[i] = (parts[i][0].lstrip(), False)
        return ((part, is_mark) for part, is_mark in parts if part)

    def tokens(self, text: str) -> list[int]:
        raise NotImplementedError


class _Bytes(_Tokens):
    """`llm_tokenizer_bpe`: words of bytes, merged by rank."""

    def __init__(self, metadata: dict[str, Any]) -> None:
        super().__init__(metadata)
        merges = metadata.get("tokenizer.ggml.merges", ())
        self.ranks = {tuple(pair.split(" ")): rank for rank, pair in enumerate(merges)}
        self.name = metadata["tokenizer.ggml.pre"]
        [self.cuts] = [cuts for cuts, names in _CUTS.items() if self.name in names.split()]
        printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
        others = [byte for byte in range(256) if byte not in printed]
        shown = {**{b: chr(b) for b in printed}, **{b: chr(256 + i) for i, b in enumerate(others)}}
        self.shown = [shown[byte] for byte in range(256)]

    def tokens(self, text: str) -> list[int]:
        words = [unicodedata.normalize("NFC", text) if self.name == "qwen2" else text]
        for pattern in self.cuts:
            words = [piece for word in words for piece in _cut(pattern, word)]
        found: list[int] = []
        for word in words:
            found += self._word("".join(self.shown[byte] for byte in word.encode()))
        return found

    def _word(self, word: str) -> list[int]:
        if self.name in _WHOLE_WORDS and word in self.numbers:
            return [self.numbers[word]]
        parts = list(word)
        while True:
            pairs = [(self.ranks.get(pair, math.inf), i) for i, pair in enumerate(itertools.pairwise(parts))]
            rank, at = min(pairs, default=(math.inf, 0))
            if rank == math.inf:
                return [self.numbers[part] for part in parts]
            parts[at : at + 2] = [parts[at] + parts[at + 1]]


def _cut(pattern: str, text: str) -> Iterator[str]:
    """What matches, and what lies between."""
    end = 0
    for found in regex.finditer(pattern, text):
        if found.start() > end:
            yield text[end : found.start()]
        yield found.group()
        end = found.end()
    if end < len(text):
        yield text[end:]


class _Pieces(_Tokens):
    """`llm_tokenizer_spm`: characters, of which the pair whose token has the highest score is merged."""

    def tokens(self, text: str) -> list[int]:
        prefix = " " if self.metadata.get("tokenizer.ggml.add_space_prefix", True) else ""
        parts: list[str] = list((prefix + text).replace(" ", "▁"))
        scores = self.metadata["tokenizer.ggml.scores"]
        queue: list[tuple[float, int, int, str]] = []
        left, right = list(range(-1, len(parts) - 1)), [*range(1, len(parts)), -1]

        def offer(one: int, other: int) -> None:
            if (
                one >= 0
                and other >= 0
                and (number := self.numbers.get(parts[one] + parts[other])) is not None
            ):
                heapq.heappush(queue, (-scores[number], one, other, parts[one] + parts[other]))

        for i in range(len(parts) - 1):
            offer(i, i + 1)
        while queue:
            _, one, other, whole = heapq.heappop(queue)
            if (
                not parts[one]
                or not parts[other]
                or parts[one] + parts[other] != whole
                or right[one] != other
            ):
                continue
            parts[one], parts[other], right[one] = whole, "", right[other]
            if right[one] >= 0:
                left[right[one]] = one
            offer(left[one], one)
            offer(one, right[one])
        found: list[int] = []
        for part in filter(None, parts):
            found += [self.numbers[part]] if part in self.numbers else self._bytes(part)
        return found

    def _bytes(self, part: str) -> list[int]:
        names = [f"<0x{byte:02X}>" for byte in part.encode()]
        if all(name in self.numbers for name in names):
            return [self.numbers[name] for name in names]
        return [self.metadata["tokenizer.ggml.unknown_token_id"]]


if __name__ == "__main__":
    answers = read(sys.argv[1], json.loads(Path(sys.argv[2]).read_text()))
    np.savez(sys.argv[3], **answers)
