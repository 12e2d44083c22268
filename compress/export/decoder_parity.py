"""Whether an ONNX language model computes what the torch model computes: at once, and token by token."""

from pathlib import Path

import numpy as np
import torch

from compress.data import load_texts
from compress.errors import GateError
from compress.graph.decoder import Decoder
from compress.models.causal_lm import CausalLM

WINDOWS, TOKENS, STEPS = 4, 128, 8


def parity(model: CausalLM, path: Path, splits: Path) -> dict[str, float]:
    """Largest difference of logits, smallest cosine of a token's, and share of tokens with the same answer.

    Each window is run whole, and again with its last `STEPS` tokens one by one after the cached others.
    Raises GateError where onnxruntime cannot load the graph or what it gives is not finite.
    """
    try:
        decoder = Decoder(path, capacity=TOKENS, prepack=False)
    except Exception as error:  # onnxruntime's exceptions share no base class but this
        raise GateError(
            "onnxruntime cannot load the exported graph", found=error, next="try export=optimum"
        ) from None
    texts = load_texts(splits).calibration.texts
    tokens = min(TOKENS, int(model.config.max_position_embeddings))
    diffs, cosines, same = [], [], []
    for ids in model.windows(texts, tokens)[:WINDOWS]:
        with torch.no_grad():
            ours = model.run({"input_ids": ids[None]})[0].numpy()
        for theirs in (whole(decoder, ids.numpy()), stepwise(decoder, ids.numpy(), STEPS)):
            if not np.isfinite(theirs).all():
                raise GateError("the exported graph gives NaN or infinity", next="try export=optimum")
            diffs.append(float(np.abs(ours - theirs).max()))
            norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
            cosines.append(float(((ours * theirs).sum(1) / norms).min()))
            same.append(float((ours.argmax(1) == theirs.argmax(1)).mean()))
    return {
        "max_abs_diff": max(diffs),
        "min_cosine": min(cosines),
        "top1_agreement": float(np.mean(same)),
        "tokens": len(same) * tokens,
    }


def whole(decoder: Decoder, ids: np.ndarray) -> np.ndarray:
    """Logits (tokens, vocabulary) of all tokens at once."""
    decoder.reset()
    return decoder.run(ids)


def stepwise(decoder: Decoder, ids: np.ndarray, steps: int) -> np.ndarray:
    """The same, the last `steps` tokens one by one."""
    decoder.reset()
    first = len(ids) - steps
    rows = [decoder.run(ids[:first]), *(decoder.run(ids[i : i + 1]) for i in range(first, len(ids)))]
    return np.concatenate(rows)


def check_parity(numbers: dict[str, float], max_abs_diff: float, min_cosine: float, advice: str) -> None:
    """Raise GateError when ONNX and torch differ by more than is allowed."""
    if not (numbers["max_abs_diff"] <= max_abs_diff and numbers["min_cosine"] >= min_cosine):
        raise GateError(
            "the exported graph does not compute what the torch model computes",
            found=f"max abs {numbers['max_abs_diff']:.2e}, cosine {numbers['min_cosine']:.6f}, "
            f"same answer for {numbers['top1_agreement']:.1%}",
            allowed=f"max abs {max_abs_diff:.0e}, cosine {min_cosine}",
            next=advice,
        )
