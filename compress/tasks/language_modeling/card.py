"""What a model card says of a language model."""

from typing import Any

from compress.tasks.language_modeling.processor import LanguageProcessor

CHECK_TEXT = "The quick brown fox jumps over the lazy dog, and then it goes home to sleep for a while."
_GENERATES = """
# compress generate . --prompt "Once upon a time"
import onnxruntime_genai as og

model = og.Model(".")
tokenizer = og.Tokenizer(model)
params = og.GeneratorParams(model)
params.set_search_options(max_length=64, do_sample=False)
generator = og.Generator(model, params)
generator.append_tokens(tokenizer.encode("Once upon a time"))
while not generator.is_done():
    generator.generate_next_token()
print(tokenizer.decode(generator.get_sequence(0)))
"""
_STEPS = """
# compress generate . --prompt "Once upon a time"
import numpy as np
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("tokenizer.json")
tokens = tokenizer.encode("Once upon a time").ids
cached = [name for name in input_names if name.startswith("past")]
cache = {{name: np.zeros((1, {heads}, 0, {size}), np.float32) for name in cached}}
read = 0
for _ in range(16):
    step = {{"input_ids": np.array([tokens[read:]]), "position_ids": np.arange(read, len(tokens))[None]}}
    given = run({{**step, "attention_mask": np.ones((1, len(tokens)), np.int64), **cache}})
    cache = {{name: given[name.replace("past_key_values", "present")] for name in cache}}
    read = len(tokens)
    tokens.append(int(given["logits"][0, -1].argmax()))
print(tokenizer.decode(tokens))
"""


def card_facts(processor: LanguageProcessor) -> dict[str, Any]:
    cache = f"float32 (batch, {processor.kv_heads}, past, {processor.head_dim})"
    return {
        "pipeline_tag": "text-generation",
        "inputs": {
            "input_ids": "int64 (batch, tokens)",
            "attention_mask": "int64 (batch, past + tokens)",
            "past_key_values.*": cache,
        },
        "outputs": {"logits": "float32 (batch, tokens, vocabulary)", "present.*": cache},
        "max_length": processor.context,
        "example_code": _STEPS.format(heads=processor.kv_heads, size=processor.head_dim),
        "generating_code": _GENERATES,  # where genai_config.json is part of the artifact
    }
