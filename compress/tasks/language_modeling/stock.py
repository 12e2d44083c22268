"""What stock transformers makes of a published language model: a script of compress.tasks.reading, which
needs no other file of this package.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np


def read(published: str, probes: dict[str, Any]) -> dict[str, np.ndarray]:
    """tokens/NAME: numbers (tokens) of a text without marks, and of others with those of texts and chats;
    outputs/NAME: logits (8, vocabulary) of the last of `probes["ids"]`, at `probes["positions"]`;
    ends/NAME: numbers, sorted."""
    import torch
    import transformers

    where: dict[str, Any] = {"local_files_only": True}
    for dtype in (_stored(published), torch.float32):
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            published, dtype=dtype, attn_implementation="eager", **where
        )
        if all(each.dtype != dtype for each in model.buffers()):  # such as a scale, which would be rounded
            break
    for part in model.modules():
        part.register_forward_pre_hook(_widen)
        part.register_forward_hook(_narrow)
    tokenizer = _tokenizer(published, model.get_input_embeddings().num_embeddings)
    found = {"library": np.array(f"transformers {transformers.__version__}")}
    for name, text in probes["texts"].items():
        found[f"tokens/{name}"] = np.array(tokenizer(text, add_special_tokens=False)["input_ids"], np.int64)
    for name, text in probes["with_marks"].items():
        found[f"tokens/{name}"] = np.array(tokenizer(text)["input_ids"], np.int64)
    if tokenizer.chat_template:
        for name, text in probes["chats"].items():
            found[f"tokens/{name}"] = _chat(tokenizer, text)
    for name, ids in probes["ids"].items():
        positions = torch.tensor([probes["positions"][name]])
        with torch.no_grad():
            told = model.eval()(
                input_ids=torch.tensor([ids]),
                position_ids=positions,
                use_cache=False,
                logits_to_keep=8,
                return_dict=True,
            )
        found[f"outputs/{name}"] = told.logits[0].numpy()
    ends = model.generation_config.eos_token_id
    found["ends/of what is generated"] = np.unique(np.array([] if ends is None else ends, np.int64))
    return found


def _stored(published: str) -> Any:
    """The type of all weights where that is bfloat16 or float16, else float32."""
    import safetensors
    import torch

    kinds = set()
    for path in Path(published).glob("*.safetensors"):
        with safetensors.safe_open(path, "pt") as weights:
            kinds |= {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118
    return {"BF16": torch.bfloat16, "F16": torch.float16}.get("+".join(kinds), torch.float32)


def _widen(part: Any, _: Any) -> None:
    """All in float32 at once may be too large: a part is while it computes, which gives the same numbers."""
    part.stored = {name: each.data for name, each in part.named_parameters(recurse=False)}
    for each in part.parameters(recurse=False):
        each.data = each.data.float()


def _narrow(part: Any, *_: Any) -> None:
    for name, each in part.named_parameters(recurse=False):
        each.data = part.stored[name]


def _chat(tokenizer: Any, text: str) -> np.ndarray:
    """What a user says, up to where the answer begins; nothing where the template refuses that."""
    import jinja2

    try:
        told = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=True, add_generation_prompt=True, return_dict=True
        )["input_ids"]
    except jinja2.TemplateError:
        told = []
    return np.array(told, np.int64)


def _tokenizer(published: str, rows: int) -> Any:
    """Of the model's class, or, where that refuses the settings or adds tokens that the embedding has
    no row for, as tokenizer.json has it."""
    import transformers

    try:
        found: Any = transformers.AutoTokenizer.from_pretrained(published, local_files_only=True)
        if max(found.get_vocab().values()) < rows:
            return found
    except TypeError:  # such as of `"add_prefix_space": null`
        pass
    return transformers.PreTrainedTokenizerFast.from_pretrained(published, local_files_only=True)


if __name__ == "__main__":
    answers = read(sys.argv[1], json.loads(Path(sys.argv[2]).read_text()))
    np.savez(sys.argv[3], **answers)  # type: ignore[arg-type]
