"""Proof that a pruned checkpoint is a plain model: stock transformers opens it in a fresh process.

Run as a script, without this package: reload.py CHECKPOINT EXPECTED.npz, prints the largest difference
between the last hidden states and those stored.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compress.families.encoder import Encoder

MAX_ABS_DIFF = 1e-4
TEXTS = ("A short text.", "And another one, a few words longer than the first.")


def check_reload(encoder: "Encoder", checkpoint: Path) -> None:
    """Compare the model in memory with `checkpoint` reopened; writes `checkpoint/reload.json`.

    Raises GateError when the outputs differ or stock transformers cannot load it.
    """
    import numpy as np
    import torch

    from compress.errors import GateError

    inputs = encoder.tokenize(TEXTS)
    with torch.no_grad():
        states = encoder.module.backbone(**inputs).last_hidden_state
    with tempfile.TemporaryDirectory() as folder:
        expected = Path(folder) / "expected.npz"
        stored = {name: tensor.numpy() for name, tensor in inputs.items()}
        np.savez(expected, states=states.numpy(), **stored)  # type: ignore[arg-type]
        command = [sys.executable, "-P", __file__, str(checkpoint), str(expected)]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
        )
    difference = float(done.stdout) if done.returncode == 0 else float("inf")
    if not difference <= MAX_ABS_DIFF:
        raise GateError(
            "the pruned checkpoint is not the model in memory when stock transformers reopens it",
            found=f"max abs difference {difference:g}; {(done.stderr.strip().splitlines() or [''])[-1]}",
            allowed=f"{MAX_ABS_DIFF:g}",
            next="prune uniformly (prune.scope=local), or report this model's architecture",
        )
    (checkpoint / "reload.json").write_text(json.dumps({"max_abs_diff": difference}))


def main(checkpoint: str, expected: str) -> None:
    import numpy as np
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(checkpoint, local_files_only=True, dtype=torch.float32).eval()
    with np.load(expected) as stored, torch.no_grad():
        inputs = {name: torch.from_numpy(stored[name]) for name in stored.files if name != "states"}
        states = model(**inputs).last_hidden_state.numpy()
        print(float(np.abs(states - stored["states"]).max()))


if __name__ == "__main__":
    main(*sys.argv[1:])
