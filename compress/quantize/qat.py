"""Static int8, then a short training with its rounding in place (quantization-aware training).

The QDQ graph itself is trained, as a torch module: the same nodes, scales and zero points, batch
normalisation long folded. What is learned goes back into the file, so that what ships has the grids that
training saw; a gate holds onnxruntime's answers against torch's. The float graph is the teacher (Hinton et
al. 2015, https://arxiv.org/abs/1503.02531). The start counts as an epoch: training may fail, never harm.
"""

import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from compress.config.evaluate import EvaluateConfig
from compress.config.quantize import Int8Qat
from compress.data.images import ImageSplits, load_images
from compress.errors import GateError, ModelError
from compress.quantize.activations import collect
from compress.quantize.finish import finish
from compress.quantize.kernels import resolve, weight_limits
from compress.quantize.layers import is_convolutional
from compress.quantize.static import calibrated
from compress.quantize.torch_graph import TorchGraph, write_back
from compress.stages.result import gate, write_result
from compress.tasks import Processor, open_processor
from compress.training.distillation import distillation
from compress.training.loop import Plan, Trainer

_SELECT_BATCH = 250
GATE_IMAGES = 64
MIN_AGREEMENT = 0.95  # of the top-1 answers of torch and onnxruntime
MAX_STEPS = 8.0  # between their logits, in steps of the logits' grid


def quantize(
    config: Int8Qat,
    cpu_flags: Sequence[str],
    graph: Path,
    checkpoint: Path,
    splits: Path,
    out: Path,
    evaluate: EvaluateConfig | None = None,
) -> None:
    """Also notes how training went. Raises ModelError for a net that is not convolutional."""
    quantized, reference = calibrated(config, cpu_flags, graph, checkpoint, splits, out)
    if not is_convolutional(reference.graph):
        raise ModelError(
            "quantize=int8_qat cannot train this net",
            found="fewer convolutions than other layers with weights",
            allowed="convolutional nets",
            next="quantize=int8_static works on any net that can be exported",
        )
    processor, data = open_processor(checkpoint), load_images(splits)
    limits = weight_limits(resolve(cpu_flags, config.weight_type, config.reduce_range))
    net, teacher = TorchGraph(quantized, reference, limits), TorchGraph(reference, reference)
    training = RoundedTraining(config, net, teacher, processor, data)
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        history = training.run(Path(scratch))
    quantized, reference = write_back(net, quantized, reference)
    (images,) = _pixels(processor, data.calibration.images[:GATE_IMAGES], GATE_IMAGES)
    agreement, steps_apart = compare(net, quantized, images)
    numbers = {"agreement": agreement, "steps_apart": steps_apart}
    trained = {  # an entry an epoch, the start first
        "train_loss": history.train_loss[1:],  # the start has none
        "select_loss": history.select,  # by which the best is chosen
        "select_accuracy": training.accuracies,
        "best_epoch": history.best_evaluation,
        **numbers,
    }
    twins = gate("torch equals onnxruntime", **numbers)
    write_result(out, gates=[twins], facts={"qat": trained})
    check_twins(agreement, steps_apart)
    finish(config, quantized, reference, checkpoint, splits, out, evaluate)


class RoundedTraining(Trainer):
    """Changes `net` in place; the epoch with the least loss on select is what stays."""

    score_name, higher_is_better = "loss", False

    def __init__(
        self,
        config: Int8Qat,
        net: TorchGraph,
        teacher: TorchGraph,
        processor: Processor,
        data: ImageSplits,
    ) -> None:
        self.config, self.net, self.teacher, self.processor, self.data = config, net, teacher, processor, data
        epoch = len(self.epoch(0))
        plan = Plan(steps=config.epochs * epoch, evaluate_every=epoch, seed=config.seed)
        optimizer = torch.optim.Adam(net.parameters(), lr=config.learning_rate)
        super().__init__(net, optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / plan.steps)), plan)
        self.teachers_answers = self._answers(teacher)
        self.accuracies: list[float] = []  # of each evaluation

    def epoch(self, seed: int) -> list[list[int]]:
        random, rows = torch.Generator().manual_seed(seed), len(self.data.train.labels)
        order = torch.randperm(rows, generator=random)[: self.config.images or rows]
        return [batch.tolist() for batch in torch.split(order, self.config.batch_size)]

    def learn(self, rows: list[int]) -> tuple[float, int]:
        (pixels,) = _pixels(self.processor, self.data.train.images[rows], len(rows))
        with torch.no_grad():
            wanted = self.teacher(pixels)
        error = loss(self.config, self.net(pixels), wanted, self.data.train.labels[rows])
        error.backward()  # type: ignore[no-untyped-call]
        return float(error.detach()), len(rows)

    def score(self) -> float:
        labels, answers = self.data.select.labels, self._answers(self.net)
        self.accuracies.append(float((answers.argmax(1).numpy() == labels).mean()))
        return float(loss(self.config, answers, self.teachers_answers, labels))

    @torch.no_grad()
    def _answers(self, net: TorchGraph) -> Tensor:
        """Logits on select, (images, classes)."""
        batches = _pixels(self.processor, self.data.select.images, _SELECT_BATCH)
        return torch.cat([net(pixels) for pixels in batches])


def _pixels(processor: Processor, images: NDArray[np.uint8], size: int) -> Iterator[Tensor]:
    """What the net reads, so many images at a time."""
    for feeds in processor.batches(images, size):
        yield torch.from_numpy(feeds["pixel_values"])


def loss(config: Int8Qat, student: Tensor, teacher: Tensor, labels: NDArray[np.int64]) -> Tensor:
    """Cross entropy with the labels; a share `distill` of it is what the teacher answers."""
    taught = distillation(student, teacher, config.temperature)
    judged = functional.cross_entropy(student, torch.from_numpy(labels))
    return (1 - config.distill) * judged + config.distill * taught


@torch.no_grad()
def compare(net: TorchGraph, quantized: onnx.ModelProto, images: Tensor) -> tuple[float, float]:
    """Share of equal top-1 answers, and the largest difference of logits in steps of their grid."""
    feeds = [{net.source: image[None].numpy()} for image in images]
    theirs = np.concatenate([values[net.result] for values in collect(quantized, [net.result], feeds)])
    ours = net(images).numpy()
    # Logits that are equal on their grid have no order: an answer counts that is one of the largest.
    chosen = np.take_along_axis(theirs, ours.argmax(1)[:, None], 1)[:, 0]
    step = net.result_step() or float(np.abs(ours).max()) / 127
    apart = float(np.abs(ours - theirs).max()) / step
    return float((chosen >= theirs.max(1)).mean()), apart


def check_twins(agreement: float, steps_apart: float) -> None:
    """Raise GateError where the file does not answer as torch did."""
    if not (agreement >= MIN_AGREEMENT and steps_apart <= MAX_STEPS):  # NaN fails
        raise GateError(
            "the quantized graph does not compute what was trained",
            found=f"{agreement:.1%} equal answers, logits {steps_apart:.1f} steps apart",
            allowed=f"at least {MIN_AGREEMENT:.0%}, at most {MAX_STEPS:g} steps",
            next="quantize=int8_static needs no training; quantize.reduce_range=true where products saturate",
        )
