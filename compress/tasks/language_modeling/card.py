"""What a model card says of a language model."""

from typing import Any

from compress.tasks.language_modeling.processor import LanguageProcessor

CHECK_TEXT = "The quick brown fox jumps over the lazy dog, and then it goes home to sleep for a while."
_EXAMPLE = """
# compress generate . --prompt "Once upon a time"
# ORT_GQA_DISABLE_FLASH_ATTENTION=1 in the environment: onnxruntime 1.31 reads prompts faster.
import onnxruntime_genai as og  # where genai_config.json is part of the artifact

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
        "example_code": _EXAMPLE,
    }
