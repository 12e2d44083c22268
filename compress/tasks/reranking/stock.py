"""What sentence-transformers makes of a published cross-encoder: a script of compress.tasks.reading, which
needs no other file of this package.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np


def read(published: str, probes: dict[str, Any]) -> dict[str, np.ndarray]:
    """tokens/NAME: numbers (tokens); outputs/NAME: score (1), of each pair, all in one batch."""
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(
        published,
        device="cpu",
        local_files_only=True,
        model_kwargs={"dtype": "float32", "attn_implementation": "eager"},
    )
    table = _positions(model[0].auto_model.base_model)
    if table is not None and table < (model.max_seq_length or 1e30):  # it would fail behind the table's end
        model.max_seq_length = table
    pairs = [tuple(pair) for pair in probes["texts"].values()]
    scores = model.predict(pairs, batch_size=len(pairs), show_progress_bar=False)
    found = {"library": np.array("sentence-transformers")}
    for name, pair, score in zip(probes["texts"], pairs, scores, strict=True):
        found[f"tokens/{name}"] = model.preprocess([pair])["input_ids"][0].numpy()
        found[f"outputs/{name}"] = np.array([score])
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
