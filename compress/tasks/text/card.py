"""The lines of a model card that turn texts into the inputs of an encoder, by tokenizers alone."""

from compress.tasks.text.processor import TextProcessor

CHECK_TEXTS = ("A cat sits on the mat.", "The quick brown fox jumps over the lazy dog.")
_EXAMPLE = """
import numpy as np
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("tokenizer.json")
tokenizer.enable_padding({padding})
tokenizer.enable_truncation({truncation})

{texts}
encoded = tokenizer.encode_batch(texts)
feeds = {{
    "input_ids": np.array([e.ids for e in encoded]),
    "attention_mask": np.array([e.attention_mask for e in encoded]),
    "token_type_ids": {types},
}}
"""
_TYPES = "np.array([e.type_ids for e in encoded])"


def code(processor: TextProcessor, texts: str) -> str:
    """`texts`: lines that make a list of this name, of texts or of pairs."""
    tokenizer, left = processor.tokenizer, ', direction="left"'
    padding = f"pad_id={tokenizer.pad_id}, pad_token={tokenizer.pad_token!r}"
    return _EXAMPLE.format(
        padding=padding + left * tokenizer.pads_left,
        truncation=f"{processor.max_length}{left * tokenizer.cuts_left}",
        texts=texts,
        types=_TYPES if tokenizer.tells_types else f"np.zeros_like({_TYPES})",
    )
