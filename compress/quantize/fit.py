"""Fit what stays float in a language model in blocks, its scales and the factors in front of its layers.

The second phase of EfficientQAT (Chen et al. 2024, https://arxiv.org/abs/2407.11062), with the float model's
likeliest next tokens for a loss, and the weights of norms as in Norm Tweaking (Li et al. 2023,
https://arxiv.org/abs/2309.02784). GPTQ keeps what each layer makes; this keeps what the model says.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from compress.config.quantize import IntegerBlocks
from compress.config.recover import DistillLogits
from compress.data import Splits
from compress.models.walk import Walk
from compress.quantize.block_linear import BlockLinear, Gain
from compress.quantize.blocks import Blocks
from compress.quantize.language_layers import HEAD, embedding_of
from compress.quantize.layerwise import Rounded
from compress.schema.quantization import BlockFit
from compress.tasks.language_modeling.model import CausalLM
from compress.tasks.language_modeling.processor import CONTEXT
from compress.tasks.language_modeling.training import LogitsDistillation


def fit(
    config: IntegerBlocks,
    checkpoint: Path,
    splits: Splits,
    rounded: Sequence[Rounded],
    table: Blocks | None,
    out: Path,
) -> tuple[list[Rounded], BlockFit]:
    """What `round_layers` made of the checkpoint with other scales and factors; `table`: the embedding of an
    untied model. It learns from the calibration and train texts, and what was best on select stays.

    Embedding and head keep their scales. Raises DataError for too little text, GateError for a loss that is
    not finite.
    """
    student = CausalLM.open(checkpoint, attention="eager")
    learner = Learner(student, rounded, table)
    select = splits.select.texts or splits.calibration.texts
    plan = DistillLogits(
        steps=config.fit_steps,
        learning_rate=config.fit_learning_rate,
        context=min(CONTEXT, student.processor.context, len(student.processor.tokens(select))),
    )
    with TemporaryDirectory(dir=out) as folder:
        texts = [*splits.calibration.texts, *splits.train.texts]
        trainer = LogitsDistillation(plan, student, CausalLM.open(checkpoint), texts, select, Path(folder))
        trainer.module = learner  # all that learns, and all that has to be kept
        history = trainer.run(Path(folder))
    return learner.learned(rounded), BlockFit(steps=history.step, select_loss=tuple(history.select))


class Learner(nn.Module):
    """What learns in `student`, whose layers are changed for those of `rounded`."""

    def __init__(self, student: CausalLM, rounded: Sequence[Rounded], table: Blocks | None) -> None:
        super().__init__()
        blocks = {name: each for one in rounded for name, each in one.blocks.items()}
        factors = {names: each for one in rounded for names, each in one.factors.items()}
        groups, linears = _normed(student), student.linears()
        student.module.requires_grad_(False)
        for weight, made in ((embedding_of(student), table), (linears[HEAD].weight, blocks.get(HEAD))):
            weight.data = weight.data if made is None else made.weight()
        self.layers = {n: BlockLinear(each, linears[n].bias) for n, each in blocks.items() if n != HEAD}
        for name, layer in self.layers.items():
            student.module.set_submodule(name, layer)
        readers: dict[str, nn.Module] = {**linears, **self.layers}
        self.gains = {}
        for names in groups:
            ones = torch.ones(linears[names[0]].in_features)
            fixed = ones / factors.get(names, ones)
            self.gains[names] = Gain([readers[name] for name in names], fixed)
        self.parts = nn.ModuleList([*self.layers.values(), *self.gains.values()])
        student.module.add_module("learner", self)  # goes with it to a GPU

    def learned(self, rounded: Sequence[Rounded]) -> list[Rounded]:
        """`rounded` with what was learned in place of its scales and factors."""
        scales = {name: layer.learned() for name, layer in self.layers.items()}
        return [
            *(
                Rounded(blocks={n: replace(b, scales=scales.get(n, b.scales)) for n, b in one.blocks.items()})
                for one in rounded
            ),
            Rounded(factors={names: 1 / gain.learned() for names, gain in self.gains.items()}),
        ]


def _normed(model: CausalLM) -> list[tuple[str, ...]]:
    """Names of the layers that read what a norm makes, by what they read; the head's is the last."""
    walk = Walk(model, model.example()["input_ids"])
    return [
        *(
            shared.names
            for index, layer in enumerate(model.stack.layers())
            for shared in walk.inputs(index)
            if layer.query in shared.linears or layer.ffn_in in shared.linears
        ),
        (HEAD,),
    ]
