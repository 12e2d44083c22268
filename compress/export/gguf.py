"""The checkpoint also as a GGUF file, for llama.cpp and what is built on it."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import log_softmax

from compress.config.ship import GgufFile
from compress.errors import GateError
from compress.models.checkpoint import read_config, read_facts
from compress.models.gguf_tokens import tokenizer_keys
from compress.models.gguf_write import check_writable, rounded, write_gguf
from compress.stages.result import gate, write_result
from compress.tasks.language_modeling import stock_gguf
from compress.tasks.language_modeling.generation import end_tokens
from compress.tasks.language_modeling.model import CausalLM
from compress.tasks.language_modeling.reading import LanguageReading
from compress.tasks.reading import Arrays, compare, stock_answers

_ENDS = "ends/of what is generated"
_NEXT = "report this model, and ship it with ship.gguf=none"


def export_gguf(config: GgufFile, checkpoint: Path, out: Path) -> None:
    """Write `model-FORMAT.gguf`, and hold it against the checkpoint with weights rounded as the format does.

    The file is read by the library gguf and computed by numpy, in a fresh process. Raises ModelError for a
    model that is not written as GGUF here, GateError where tokens differ, or logits by more than rounding.
    """
    check_writable(read_config(checkpoint))
    path, ends = out / f"model-{config.format}.gguf", end_tokens(checkpoint)
    keys = tokenizer_keys(checkpoint, ends)
    shapes = write_gguf(path, checkpoint, config.format, read_facts(checkpoint).base_model, keys)
    model = CausalLM.open(checkpoint)
    reading = LanguageReading(model, ends)
    probes = reading.probes()
    before = reading.answers(probes)
    with torch.no_grad():
        for name, parameter in model.module.named_parameters():
            read = rounded(parameter.numpy(), config.format, name, shapes[name])
            parameter.copy_(torch.from_numpy(read))
    after, told = reading.answers(probes), stock_answers(stock_gguf, path, probes)
    numbers = _compared(after, told)
    numbers["kl_of_rounding_nats"] = divergence(before, after)
    write_result(
        out, gates=[gate(f"GGUF read as the checkpoint in {config.format}", **numbers)], ships=[path.name]
    )


def _compared(ours: Arrays, told: Arrays) -> dict[str, float]:
    """llama.cpp knows more ends by their texts: those of the checkpoint have to be among them."""
    lost = {*ours[_ENDS].tolist()} - {*told[_ENDS].tolist()}
    if lost:
        raise GateError(
            "a GGUF file cannot name all tokens that end a text of this model", found=sorted(lost), next=_NEXT
        )
    try:
        return compare({**ours, _ENDS: told[_ENDS]}, told)
    except GateError as error:
        raise GateError(
            "the GGUF file does not hold what the checkpoint does", found=_found(error), next=_NEXT
        ) from None


def divergence(before: Arrays, after: Arrays) -> float:
    """Mean Kullback-Leibler divergence, in nats, of the next token's distributions."""
    kl = []
    for name in before:
        if name.startswith("outputs/"):
            one, other = (log_softmax(each[name].astype(np.float64), -1) for each in (before, after))
            kl.append((np.exp(one) * (one - other)).sum(-1))
    return float(np.concatenate(kl).mean())


def _found(error: Any) -> str:
    lines = [line.strip().removeprefix("found:").strip() for line in str(error).splitlines()]
    return next((line for line in lines[1:] if line), str(error))
