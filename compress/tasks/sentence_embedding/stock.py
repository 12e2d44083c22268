"""What sentence-transformers makes of a published encoder: a script of compress.tasks.reading, which needs no
other file of this package.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np


def read(published: str, probes: dict[str, Any]) -> dict[str, np.ndarray]:
    """tokens/NAME: numbers (tokens); outputs/NAME: embedding (hidden), of each text, all in one batch."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        published,
        device="cpu",
        local_files_only=True,
        model_kwargs={"dtype": "float32", "attn_implementation": "eager"},
    )
    table = _positions(model[0].auto_model)
    if table is not None and table < (model.max_seq_length or 0):  # it would fail behind the table's end
        model.max_seq_length = table
    prompt = model.prompts.get(model.default_prompt_name or "") or ""
    texts = probes["texts"]
    found = {"library": np.array("sentence-transformers")}
    embeddings = model.encode(list(texts.values()), batch_size=len(texts), show_progress_bar=False)
    for (name, text), embedding in zip(texts.items(), embeddings, strict=True):
        found[f"tokens/{name}"] = model.preprocess([prompt + text])["input_ids"][0].numpy()
        found[f"outputs/{name}"] = embedding
    return found


def _positions(backbone: Any) -> int | None:
    """Tokens that a table of learned positions is long enough for; None without one."""
    table = getattr(getattr(backbone, "embeddings", None), "position_embeddings", None)
    if table is None:
        return None
    padding = table.padding_idx  # RoBERTa counts from behind it
    return int(table.num_embeddings) - (0 if padding is None else padding + 1)


if __name__ == "__main__":
    answers = read(sys.argv[1], json.loads(Path(sys.argv[2]).read_text()))
    np.savez(sys.argv[3], **answers)  # type: ignore[arg-type]
