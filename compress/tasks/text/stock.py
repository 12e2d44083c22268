"""What transformers makes of a published encoder with a head: a script of compress.tasks.reading, which needs
no other file of this package.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np


def read(published: str, probes: dict[str, Any]) -> dict[str, np.ndarray]:
    """tokens/NAME: numbers (tokens); outputs/NAME: what the head gives of each text or pair, all in a batch,
    of each of its tokens where it gives that; classes/names: of the outputs, in their order.

    `probes`: auto, a class of transformers; outputs, of what it gives; texts; cut, what is cut of pairs.
    """
    import torch
    import transformers

    where: dict[str, Any] = {"local_files_only": True}
    tokenizer = transformers.AutoTokenizer.from_pretrained(published, **where)
    model = getattr(transformers, probes["auto"]).from_pretrained(
        published, dtype=torch.float32, attn_implementation="eager", **where
    )
    names = model.config.id2label
    found = {
        "library": np.array(f"transformers {transformers.__version__}"),
        "classes/names": np.array([str(names[n]) for n in sorted(names)]),
    }
    how = {"truncation": probes["cut"], "max_length": _longest(tokenizer, model)}
    texts = [[text] if isinstance(text, str) else text for text in probes["texts"].values()]
    rows = []
    for text in texts:  # lists of one: a second text that is empty would pass for none
        cut = how if len(text) == 2 else {**how, "truncation": True}
        rows.append({key: each[0] for key, each in tokenizer(*([part] for part in text), **cut).items()})
    batch = tokenizer.pad(rows, return_tensors="pt")
    with torch.no_grad():
        given = model.eval()(**batch, return_dict=True)
    outputs = torch.stack([getattr(given, name) for name in probes["outputs"]], 1).numpy()
    real = batch["attention_mask"].numpy().astype(bool)
    of_tokens = outputs.shape[2] == real.shape[1] and probes["per_token"]
    for number, (name, row) in enumerate(zip(probes["texts"], rows, strict=True)):
        found[f"tokens/{name}"] = np.array(row["input_ids"])
        found[f"outputs/{name}"] = outputs[number][:, real[number]] if of_tokens else outputs[number]
    return found


def _longest(tokenizer: Any, model: Any) -> int:
    """Tokens: of the tokenizer, of the config, and of a table of learned positions, the fewest."""
    table = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    limits = [tokenizer.model_max_length, model.config.max_position_embeddings]
    if table is not None:  # RoBERTa counts from behind its padding
        limits.append(table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1))
    return int(min(limits))


if __name__ == "__main__":
    answers = read(sys.argv[1], json.loads(Path(sys.argv[2]).read_text()))
    np.savez(sys.argv[3], **answers)  # type: ignore[arg-type]
