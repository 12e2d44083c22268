"""What a report and a model card say of a checkpoint: written when it is saved, so that nobody has to
open the model (and load torch) to print it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from compress.errors import ModelError
from compress.models.checkpoint import read_config
from compress.models.kind import check_architecture
from compress.registry import declared, fitting, is_option

SUMMARY, CHECK_INPUTS = "summary.json", "check_inputs.npz"


@dataclass(frozen=True, kw_only=True)
class Summary:
    parameters: int  # of what the graph holds
    macs: int  # multiply-accumulates of one reference input
    widths: dict[str, tuple[int, ...]]  # kind -> width of each layer
    keeps_checkpoint: bool  # whether stock transformers loads it
    # kind -> name of each layer, as the dense model has it; empty where only their order is known
    layer_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    card: dict[str, Any]  # facts for the model card: pipeline_tag, inputs, outputs, example_code, ...
    # The code calls run(feeds), which the target's own lines before it define.

    @property
    def layers(self) -> str:
        """The kind of net: a transformer whose parts are known here, or what most layers with weights are."""
        if "ffn" in self.widths:
            return "transformer"
        convolutions, products = (len(self.widths.get(kind, ())) for kind in ("conv2d", "linear"))
        return "convolutional" if convolutions > products else "other"


_ADAPTER = TypeAdapter(Summary)


def write_summary(summary: Summary, inputs: Mapping[str, np.ndarray], checkpoint: Path) -> None:
    """`inputs`: name -> array, a small input that an artifact is checked with."""
    (checkpoint / SUMMARY).write_bytes(_ADAPTER.dump_json(summary, indent=1) + b"\n")
    np.savez(checkpoint / CHECK_INPUTS, **inputs)  # type: ignore[arg-type]


def read_summary(checkpoint: Path) -> Summary:
    """Raises ModelError where the folder is no checkpoint of ours."""
    try:
        return _ADAPTER.validate_json((checkpoint / SUMMARY).read_bytes())
    except (OSError, ValidationError) as error:
        raise ModelError(
            f"{checkpoint} is not a checkpoint",
            found=str(error).splitlines()[0],
            next="import the model again: compress cache --max-size 0 drops what was kept",
        ) from None


def check_options(task: str, options: Iterable[object], checkpoint: Path) -> None:
    """Raise ModelError, before anything is computed, for an option that does not work on such a net."""
    options, layers = list(options), read_summary(checkpoint).layers
    check_architecture(options, read_config(checkpoint), task)
    for chosen in (declared(type(config)) for config in options if is_option(config)):
        if not chosen.fits(task, layers):
            names = fitting(chosen.group, task, layers)
            raise ModelError(
                f"{chosen.group}={chosen.name} does not work on this kind of model",
                found=f"{layers} layers",
                allowed=f"{' or '.join(chosen.layers)} layers; for these: {chosen.group}={','.join(names)}",
                next=f"{chosen.group}={next((name for name in names if name != 'none'), 'none')}",
            )


def read_check_inputs(checkpoint: Path) -> dict[str, np.ndarray]:
    with np.load(checkpoint / CHECK_INPUTS, allow_pickle=False) as stored:
        return dict(stored)
