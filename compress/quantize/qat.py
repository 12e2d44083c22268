"""Static int8, then a short training with its rounding in place (quantization-aware training).

The QDQ graph itself is trained, as a torch module: the same nodes, scales and zero points, batch
normalisation long folded. What is learned goes back into the file, so that what ships has the grids that
training saw; a gate holds onnxruntime's answers against torch's. The float graph is the teacher (Hinton et
al. 2015, https://arxiv.org/abs/1503.02531). The start counts as an epoch: training may fail, never harm.
"""

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from compress.config.quantize import Int8Qat
from compress.data import ImageSplits, load_images
from compress.errors import GateError, ModelError
from compress.models import load_image_classifier
from compress.models.image_classifier import ImageClassifier
from compress.quantize.activations import collect
from compress.quantize.finish import finish
from compress.quantize.kernels import resolve, weight_limits
from compress.quantize.layers import is_convolutional
from compress.quantize.static import calibrated
from compress.quantize.torch_graph import TorchGraph, write_back
from compress.training.supervised import distillation

log = logging.getLogger(__name__)
_SELECT_BATCH = 250
GATE_IMAGES = 64
MIN_AGREEMENT = 0.95  # of the top-1 answers of torch and onnxruntime
MAX_STEPS = 8.0  # between their logits, in steps of the logits' grid


@dataclass(kw_only=True)
class Trained:
    """How training went, an entry an epoch, the start first; and how near the file is to torch."""

    train_loss: list[float] = field(default_factory=list)  # none of the start
    select_loss: list[float] = field(default_factory=list)  # by which the best is chosen
    select_accuracy: list[float] = field(default_factory=list)
    best_epoch: int = 0
    agreement: float = 0.0
    steps_apart: float = 0.0


def quantize(
    config: Int8Qat, cpu_flags: Sequence[str], graph: Path, checkpoint: Path, splits: Path, out: Path
) -> None:
    """Also writes `out/qat.json`. Raises ModelError for a net that is not convolutional."""
    model, data = load_image_classifier(checkpoint), load_images(splits)
    quantized, reference = calibrated(config, cpu_flags, graph, checkpoint, splits, out)
    if not is_convolutional(reference.graph):
        raise ModelError(
            "quantize=int8_qat cannot train this net",
            found="fewer convolutions than other layers with weights",
            allowed="convolutional nets",
            next="quantize=int8_static works on any net that can be exported",
        )
    limits = weight_limits(resolve(cpu_flags, config.weight_type, config.reduce_range))
    net, teacher = TorchGraph(quantized, reference, limits), TorchGraph(reference, reference)
    trained = Training(config, net, teacher, model, data).run()
    quantized, reference = write_back(net, quantized, reference)
    images = model.inputs(data.calibration.images[:GATE_IMAGES])["pixel_values"]
    trained.agreement, trained.steps_apart = compare(net, quantized, images)
    check_twins(trained)
    (out / "qat.json").write_text(json.dumps(asdict(trained), indent=1) + "\n")
    finish(config, quantized, reference, checkpoint, splits, out)


class Training:
    """Changes `net` in place; the epoch with the least loss on select is what stays."""

    def __init__(
        self,
        config: Int8Qat,
        net: TorchGraph,
        teacher: TorchGraph,
        model: ImageClassifier,
        data: ImageSplits,
    ) -> None:
        self.config, self.net, self.teacher, self.model, self.data = config, net, teacher, model, data
        self.images = min(config.images or len(data.train.labels), len(data.train.labels))
        self.optimizer = torch.optim.Adam(net.parameters(), lr=config.learning_rate)
        steps = config.epochs * math.ceil(self.images / config.batch_size)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps))
        )
        self.trained = Trained()

    def run(self) -> Trained:
        wanted = self._answers(self.teacher)
        lowest = self._look(wanted)
        best = self._state()
        for epoch in range(self.config.epochs):
            self.trained.train_loss.append(self._epoch(epoch))
            found = self._look(wanted)
            if found < lowest:
                lowest, best, self.trained.best_epoch = found, self._state(), epoch + 1
        self.net.load_state_dict(best)
        return self.trained

    def _epoch(self, epoch: int) -> float:
        """Mean loss; the same images in the same order for the same seed and epoch."""
        random = torch.Generator().manual_seed(self.config.seed * 100_003 + epoch)
        order = torch.randperm(len(self.data.train.labels), generator=random)[: self.images].numpy()
        losses = []
        for start in range(0, self.images, self.config.batch_size):
            rows = order[start : start + self.config.batch_size]
            pixels = self.model.inputs(self.data.train.images[rows])["pixel_values"]
            with torch.no_grad():
                wanted = self.teacher(pixels)
            found = loss(self.config, self.net(pixels), wanted, self.data.train.labels[rows])
            self.optimizer.zero_grad(set_to_none=True)
            found.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.schedule.step()
            losses.append(float(found.detach()))
        return float(np.mean(losses))

    def _look(self, wanted: Tensor) -> float:
        """Loss on select."""
        labels, trained = self.data.select.labels, self.trained
        found = self._answers(self.net)
        trained.select_loss.append(float(loss(self.config, found, wanted, labels)))
        trained.select_accuracy.append(float((found.argmax(1).numpy() == labels).mean()))
        told = len(trained.train_loss), trained.select_loss[-1], trained.select_accuracy[-1]
        log.info("epoch %d: select loss %.5f, accuracy %.4f", *told)
        return trained.select_loss[-1]

    @torch.no_grad()
    def _answers(self, net: TorchGraph) -> Tensor:
        """Logits on select, (images, classes)."""
        batches = self.model.batches(self.data.select.images, _SELECT_BATCH)
        return torch.cat([net(batch["pixel_values"]) for batch in batches])

    def _state(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self.net.state_dict().items()}


def loss(config: Int8Qat, student: Tensor, teacher: Tensor, labels: NDArray[np.int64]) -> Tensor:
    """Cross entropy with the labels; a share `distill` of it is what the teacher answers."""
    taught = distillation(student, teacher, config.temperature)
    judged = functional.cross_entropy(student, torch.from_numpy(labels))
    return (1 - config.distill) * judged + config.distill * taught


@torch.no_grad()
def compare(net: TorchGraph, quantized: onnx.ModelProto, images: Tensor) -> tuple[float, float]:
    """Share of equal top-1 answers, and the largest difference of logits in steps of their grid."""
    feeds = [{net.source: image[None].numpy()} for image in images]
    theirs = np.concatenate([found[net.result] for found in collect(quantized, [net.result], feeds)])
    ours = net(images).numpy()
    # Logits that are equal on their grid have no order: an answer counts that is one of the largest.
    chosen = np.take_along_axis(theirs, ours.argmax(1)[:, None], 1)[:, 0]
    step = net.result_step() or float(np.abs(ours).max()) / 127
    apart = float(np.abs(ours - theirs).max()) / step
    return float((chosen >= theirs.max(1)).mean()), apart


def check_twins(trained: Trained) -> None:
    """Raise GateError where the file does not answer as torch did."""
    if not (trained.agreement >= MIN_AGREEMENT and trained.steps_apart <= MAX_STEPS):  # NaN fails
        raise GateError(
            "the quantized graph does not compute what was trained",
            found=f"{trained.agreement:.1%} equal answers, logits {trained.steps_apart:.1f} steps apart",
            allowed=f"at least {MIN_AGREEMENT:.0%}, at most {MAX_STEPS:g} steps",
            next="quantize=int8_static needs no training; quantize.reduce_range=true where products saturate",
        )
