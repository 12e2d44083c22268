"""Tiny language models as they are published, one feature each: `CASES` are read, `REFUSED` are not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, processors

from tests.zoo.gguf import LLAMA3, MARKS, of_bytes, of_pieces, original

Make = Callable[[Path], object]
CHAT = (
    "{{ bos_token }}{% for message in messages %}<|start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def _before() -> Any:
    from tests.zoo.gguf import _after

    return _after(LLAMA3)


def _edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    change(content)
    path.write_text(json.dumps(content, ensure_ascii=False), "utf-8")


def _published(
    *,
    tokenizer: Callable[[], Tokenizer] = lambda: of_bytes(_before()),
    settings: dict[str, Any] | None = None,
    backend: dict[str, Any] | None = None,
    kind: str = "llama",
    **changes: Any,
) -> Make:
    """`settings` go to tokenizer_config.json, `backend` to tokenizer.json, `changes` to config.json."""

    def make(folder: Path) -> None:
        original(folder, kind, tokenizer(), **changes)
        _edit(folder / "tokenizer_config.json", lambda content: content.update(settings or {}))
        _edit(folder / "tokenizer.json", lambda content: content.update(backend or {}))

    return make


def _written(**values: Any) -> Make:
    """With other values in config.json, for which no model is made."""

    def make(folder: Path) -> None:
        _published()(folder)
        _edit(folder / "config.json", lambda content: content.update(values))

    return make


def _pieces(prefix: bool = True) -> Tokenizer:
    return of_pieces(prefix)[0]


def _marked() -> Tokenizer:
    made = of_bytes(_before())
    made.post_processor = processors.TemplateProcessing(
        single=f"{MARKS[1]} $A", special_tokens=[(MARKS[1], made.token_to_id(MARKS[1]))]
    )
    return made


def _half(dtype: torch.dtype, shard: str = "50GB") -> Make:
    def make(folder: Path) -> None:
        model = original(folder, tokenizer=of_bytes(_before()), tie_word_embeddings=False)
        (folder / "model.safetensors").unlink()
        model.to(dtype).save_pretrained(folder, max_shard_size=shard)

    return make


def _two_heads(folder: Path) -> None:
    """Tied by config.json, and another head in the weights all the same."""
    original(folder, tokenizer=of_bytes(_before()))
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].flip(0).contiguous()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def _with_a_bias(folder: Path) -> None:
    """Of the head, which Llama's has not."""
    original(folder, tokenizer=of_bytes(_before()), tie_word_embeddings=False)
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.bias"] = torch.ones(len(weights["lm_head.weight"]))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def _without_a_part(folder: Path) -> None:
    _half(torch.float32, "100KB")(folder)
    next(folder.glob("model-00002-of-*")).unlink()


def _older_files(folder: Path) -> None:
    """vocab.json and merges.txt alone."""
    original(folder, "qwen2", of_bytes(_before()))
    described = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]
    (folder / "vocab.json").write_text(json.dumps(described["vocab"]), "utf-8")
    merges = "\n".join(" ".join(pair) for pair in described["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", "utf-8")
    (folder / "tokenizer.json").unlink()
    settings = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": MARKS[0], "pad_token": MARKS[0]}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"unk_token": MARKS[2]}))


def _larger_embedding(folder: Path) -> None:
    original(folder, tokenizer=of_bytes(_before()), vocab_size=448)


def _template_beside(folder: Path) -> None:
    original(folder, tokenizer=of_bytes(_before()))
    (folder / "chat_template.jinja").write_text(CHAT)


def _refusing_template(folder: Path) -> None:
    original(folder, tokenizer=of_bytes(_before()))
    (folder / "chat_template.jinja").write_text("{{ raise_exception('a system message comes first') }}")


CUT = {"truncation": {"direction": "Right", "max_length": 6, "strategy": "LongestFirst", "stride": 0}}
FILLED = {
    "padding": {
        "strategy": {"Fixed": 16},
        "direction": "Left",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": MARKS[0],
    }
}
LLAMA = {"tokenizer_class": "LlamaTokenizer", "pad_token": MARKS[0]}
CASES: dict[str, Make] = {
    "bytes": _published(),
    "cut and filled by tokenizer.json": _published(backend=CUT | FILLED),
    "a mark in front by tokenizer.json": _published(tokenizer=_marked),
    "a mark in front by tokenizer_config.json": _published(
        tokenizer=_pieces, settings={**LLAMA, "add_bos_token": True}
    ),
    "marks of both ends": _published(
        tokenizer=_pieces, settings={**LLAMA, "add_bos_token": True, "add_eos_token": True}
    ),
    "a mark that tokenizer_config.json forbids": _published(
        tokenizer=_marked, settings={"add_bos_token": False}
    ),
    "pieces": _published(tokenizer=_pieces),
    "pieces of a Llama": _published(tokenizer=_pieces, settings={**LLAMA, "legacy": False}),
    "pieces of a Llama, as before": _published(tokenizer=_pieces, settings={**LLAMA, "legacy": True}),
    "pieces without a space in front": _published(
        tokenizer=lambda: _pieces(False), settings={**LLAMA, "add_prefix_space": False}
    ),
    "spaces that decoding takes": _published(settings={"clean_up_tokenization_spaces": True}),
    "a token that tokenizer_config.json adds": _published(
        settings={
            "added_tokens_decoder": {
                str(n): {
                    "content": mark,
                    "lstrip": n == 2,
                    "rstrip": n == 2,
                    "normalized": False,
                    "single_word": False,
                    "special": True,
                }
                for n, mark in enumerate([*MARKS[:2], "<unk>"])
            }
        }
    ),
    "vocab.json and merges.txt": _older_files,
    "a chat in a file": _template_beside,
    "a chat in tokenizer_config.json": _published(settings={"chat_template": CHAT}),
    "a chat that has to begin otherwise": _refusing_template,
    "an embedding with more rows": _larger_embedding,
    "two heads for a tied model": _two_heads,
    "a rotation that changes behind the last position": _published(kind="phi3"),
    "a part of the rotation, and layers of its own head size": _published(
        head_dim=32,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
    ),
    "float16": _half(torch.float16),
    "bfloat16 in parts": _half(torch.bfloat16, "100KB"),
}
REFUSED: dict[str, tuple[Make, str]] = {
    "no positions": (_written(max_position_embeddings=0), "max_position_embeddings: 0"),
    "an unknown activation": (_written(hidden_act="none"), "makes no model of config.json"),
    "marks that are taken apart": (
        _published(settings={"split_special_tokens": True}),
        "split_special_tokens",
    ),
    "an embedding with fewer rows": (
        lambda folder: original(folder, tokenizer=of_bytes(_before()), vocab_size=400),
        "tokens that the model does not know",
    ),
    "chats of several kinds": (
        _published(settings={"chat_template": [{"name": "rag", "template": CHAT}]}),
        "several templates of chats(.|\n)*rag",
    ),
    "an end that is no number": (
        lambda folder: (
            _published()(folder),
            _edit(folder / "generation_config.json", lambda content: content.update(eos_token_id="</s>")),
        ),
        "which tokens end a text",
    ),
    "an adapter": (
        lambda folder: (
            _published()(folder),
            _edit(folder / "adapter_config.json", lambda content: content.update(peft_type="LORA")),
        ),
        "holds an adapter",
    ),
    "a part that is not there": (_without_a_part, r"index\.json names model-00002-of-"),
    "a head that is not there": (
        lambda folder: (
            _published()(folder),
            _edit(folder / "config.json", lambda content: content.update(tie_word_embeddings=False)),
        ),
        r"weights are missing(.|\n)*lm_head\.weight",
    ),
    "a bias of the head": (_with_a_bias, r"unexpected weights(.|\n)*lm_head\.bias"),
    "weights quantized by others": (
        _written(quantization_config={"quant_method": "awq", "bits": 4}),
        "awq",
    ),
}
