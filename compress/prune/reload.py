"""Proof that a pruned checkpoint is the model in memory, when it is opened again.

Run as a script, without this package: reload.py CHECKPOINT EXPECTED.npz AUTO_CLASS OUTPUT, prints the
largest difference between what stock transformers gives and what is stored. Of a language model it also
checks that greedy generation gives the same tokens with and without the cache of keys and values.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from compress.tasks import Model

MAX_ABS_DIFF = 1e-4  # of hidden states, or of logits
GENERATED = 16  # tokens


def check_reload(model: "Model", checkpoint: Path) -> None:
    """Open `checkpoint` with stock transformers in a fresh process, and note the gate in its stage.json.

    Raises GateError when the outputs differ or stock transformers cannot load it.
    """
    import numpy as np
    import torch

    from compress.errors import GateError
    from compress.models import read_check_inputs
    from compress.stages.result import gate, write_result

    cached = ("past_key_values.", "position_ids")  # no past, stock positions
    inputs = {name: a for name, a in read_check_inputs(checkpoint).items() if not name.startswith(cached)}
    with torch.no_grad():
        tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
        auto, output, expected_output = model.stock_view(tensors)
    with tempfile.TemporaryDirectory() as folder:
        expected = Path(folder) / "expected.npz"
        np.savez(expected, expected=expected_output.numpy(), **inputs)  # type: ignore[arg-type]
        command = [sys.executable, "-P", __file__, str(checkpoint), str(expected), auto, output]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
        )
    difference = float(done.stdout) if done.returncode == 0 else float("inf")
    if not difference <= MAX_ABS_DIFF:
        raise GateError(
            "the pruned checkpoint is not the model in memory when stock transformers reopens it",
            found=f"max abs difference {difference:g}; {(done.stderr.strip().splitlines() or [''])[-1]}",
            allowed=f"{MAX_ABS_DIFF:g}",
            next="report this model's architecture",
        )
    passed = gate("stock transformers reloads the checkpoint", max_abs_diff=difference)
    write_result(checkpoint, gates=[passed])


def check_reopened(model: "Model", checkpoint: Path, inputs: "Mapping[str, Tensor]") -> None:
    """The same by this package, from the files of `checkpoint` alone. Raises GateError when the outputs
    differ."""
    import torch

    from compress.errors import GateError
    from compress.stages.result import gate, write_result
    from compress.tasks import load

    with torch.no_grad():
        expected, reopened = model.outputs(inputs), load(checkpoint).outputs(inputs)
    differences = [(expected[name] - reopened[name]).abs().max() for name in expected]
    difference = float(torch.stack(differences).max())
    if not difference <= MAX_ABS_DIFF:
        raise GateError(
            "the pruned checkpoint opened again is not the model in memory",
            found=f"max abs difference {difference:g}",
            allowed=f"{MAX_ABS_DIFF:g}",
        )
    passed = gate("the checkpoint opened again computes the same", max_abs_diff=difference)
    write_result(checkpoint, gates=[passed])


def main(checkpoint: str, expected: str, auto: str, output: str) -> None:
    import numpy as np
    import torch
    import transformers

    opened = getattr(transformers, auto).from_pretrained(
        checkpoint, local_files_only=True, dtype=torch.float32
    )
    with np.load(expected) as stored, torch.no_grad():
        inputs = {name: torch.from_numpy(stored[name]) for name in stored.files if name != "expected"}
        outputs = getattr(opened.eval()(**inputs), output).numpy()
        if auto == "AutoModelForCausalLM":
            check_generation(opened, inputs)
        print(float(np.abs(outputs - stored["expected"]).max()))


def check_generation(opened: Any, inputs: "Mapping[str, Tensor]") -> None:
    """Raise SystemExit where greedy generation with the cache gives other tokens than without."""
    runs = [
        opened.generate(
            **inputs,
            use_cache=cache,
            do_sample=False,
            min_new_tokens=GENERATED,
            max_new_tokens=GENERATED,
            pad_token_id=0,
        )[0].tolist()
        for cache in (True, False)
    ]
    if runs[0] != runs[1]:
        raise SystemExit(f"generated with the cache {runs[0]}, without {runs[1]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
