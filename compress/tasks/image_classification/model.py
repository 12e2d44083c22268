"""Classifiers of images: pixels -> logits, from transformers or from a function that builds the net.

A checkpoint is config.json, model.safetensors and preprocessor_config.json (sizes, mean and standard
deviation, as transformers writes them). Where config.json has `builder` ("package.module:function") and
`builder_kwargs`, the net is made by that function and `pruning.json` replayed on it; else it is one of
transformers' image classifiers. A checkpoint of timm gets a builder when it is imported.
"""

import importlib
import json
import warnings
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_model
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from compress.errors import ModelError
from compress.models.architectures import IMAGE_TRANSFORMERS
from compress.models.checkpoint import (
    Facts,
    check_weights,
    read_config,
    read_json,
    write_facts,
)
from compress.models.hooks import hooked
from compress.models.layers import Stack
from compress.models.loading import from_folder, open_stock
from compress.models.padding import cut_padding, save_padded
from compress.models.preprocessing import read_preprocessing, shape_of
from compress.models.summary import Summary, write_summary
from compress.tasks.base import Opened, tensors
from compress.tasks.image_classification.card import card_facts
from compress.tasks.image_classification.processor import ImageProcessor, Images

OUTPUT = "logits"
OUR_NETS = "compress.models.image_nets:"  # by name: stages that open such a net have its code in their keys


class Classifier(nn.Module):
    """pixel_values (batch, channels, height, width), normalised -> logits (batch, classes).

    Raises ModelError where the net gives none.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixel_values: Tensor) -> Tensor:
        found = self.net(pixel_values)
        logits = found if isinstance(found, Tensor) else getattr(found, "logits", None)
        if isinstance(logits, Tensor):
            return logits
        raise ModelError(
            "the net gives something else than logits",
            found=f"a {type(found).__name__}",
            allowed="one tensor (batch, classes)",
            next="name a function in model.builder whose net gives the logits alone",
        )


class ImageClassifier(Opened):
    """A classifier with its preprocessing, as opened from a checkpoint folder."""

    task = "image_classification"
    output_names = (OUTPUT,)

    def __init__(
        self,
        net: nn.Module,
        config: Mapping[str, Any],
        preprocessing: Mapping[str, Any],
        facts: Facts,
        history: list[Any],
    ) -> None:
        self.module = Classifier(net).eval()
        self.config, self.preprocessing, self.facts = dict(config), dict(preprocessing), facts
        self.history = history  # of pruning, as torch-pruning tells it
        self.shape = self.processor.shape
        model_type = None if "builder" in config else config.get("model_type")
        self.architecture = IMAGE_TRANSFORMERS.get(str(model_type))

    @classmethod
    def load(cls, folder: Path, facts: Facts, attention: str = "sdpa") -> "ImageClassifier":
        """Open a folder; raises ModelError for a net that cannot be built or weights that do not fit."""
        return cls.described(read_config(folder), read_preprocessing(folder), folder, facts, attention)

    @classmethod
    def described(
        cls,
        config: Mapping[str, Any],
        preprocessing: Mapping[str, Any],
        folder: Path,
        facts: Facts,
        attention: str = "sdpa",
    ) -> "ImageClassifier":
        """The net that `config` describes with the weights that lie in `folder`."""
        check_weights(folder)
        path = folder / "pruning.json"
        history = read_json(path) if path.is_file() else []
        height, width, channels = shape_of(preprocessing)
        example = torch.zeros(1, channels, height, width)
        if "builder" in config:
            net = build(config["builder"], config.get("builder_kwargs") or {})
            replay(net, history, example)
            _fill(net, folder)
        elif history:
            net = _load_pruned(folder, history, example)
        else:
            wanted = None if attention == "sdpa" else attention  # None: sdpa, where the net has it
            net = open_stock(transformers.AutoModelForImageClassification, folder, wanted, foreign="pooler")
        opened = cls(net, config, preprocessing, facts, history)
        if opened.architecture is not None:
            cut_padding(opened.stack, vars(opened.stack.config))
        return opened

    def save(self, folder: Path, facts: Facts) -> None:
        """Write a checkpoint; a ViT's stays loadable by stock transformers."""
        net = self.module.net
        if "builder" in self.config:
            (folder / "config.json").write_text(json.dumps(self.config, indent=2) + "\n")
            save_model(net, str(folder / "model.safetensors"))  # what two names share is written once
        elif self.architecture is not None:
            save_padded(net, self.stack, folder)
        else:
            net.save_pretrained(folder)  # type: ignore[operator]
        if self.history:
            (folder / "pruning.json").write_text(json.dumps(self.history) + "\n")
        (folder / "preprocessor_config.json").write_text(json.dumps(self.preprocessing, indent=2) + "\n")
        described = {**read_config(folder), "id2label": dict(enumerate(self.classes))}
        (folder / "config.json").write_text(json.dumps(described, indent=2) + "\n")
        write_facts(facts, folder)
        height, width, channels = self.shape
        summary = Summary(
            parameters=self.parameters(),
            macs=self.macs(),
            widths=self.widths(),
            layer_names=self.layer_names(facts),
            # Stock transformers has the widths of the config for a CNN.
            keeps_checkpoint="builder" in self.config or not self.history,
            card=card_facts(self.shape, self.preprocessing, self.classes),
        )
        ramp = np.arange(2 * height * width * channels, dtype=np.uint32) * 37 % 256
        check = ramp.astype(np.uint8).reshape(2, height, width, channels)
        write_summary(summary, self.processor.inputs(check), folder)

    # -- structure

    @cached_property
    def classes(self) -> list[str]:
        """Names of the outputs in their order; numbers where config.json of a net that is not transformers'
        has none. Raises ModelError where there are not as many names as outputs."""
        with torch.no_grad():
            count = self.module(self.example()).shape[-1]
        own = getattr(self.module.net, "config", None)
        names = self.config.get("id2label") or getattr(own, "id2label", None) or dict(enumerate(range(count)))
        named = {int(number): str(name) for number, name in names.items()}
        if sorted(named) != list(range(count)):
            raise ModelError(
                "id2label in config.json does not name every output of the net",
                found=f"{len(named)} names, of {min(named)} to {max(named)}",
                allowed=f"{count}: 0 to {count - 1}",
            )
        return [named[number] for number in range(count)]

    @property
    def stack(self) -> Stack:
        """The layers of a ViT; raises ModelError for any other net."""
        if self.architecture is None:
            kind = self.config.get("builder") or self.config.get("model_type")
            raise ModelError(
                "an option of the configuration does not work on this kind of model",
                found=f"{kind}, a net without transformer layers that are known here",
                allowed=f"an encoder, or a classifier of model_type {', '.join(IMAGE_TRANSFORMERS)}",
                next="prune=channels cuts convolutional nets",
            )
        return Stack(cast(nn.Module, self.module.net.base_model), self.architecture)

    def parameters(self) -> int:
        return sum(p.numel() for p in self.module.parameters())

    def layers(self) -> dict[str, nn.Conv2d | nn.Linear]:
        """Name -> layer with weights, in the order of the net."""
        named = self.module.net.named_modules()
        return {name: each for name, each in named if isinstance(each, nn.Conv2d | nn.Linear)}

    def output_layers(self) -> list[nn.Conv2d | nn.Linear]:
        """Those whose results reach the logits through no other layer with weights."""
        made: dict[Any, nn.Conv2d | nn.Linear] = {}  # node of autograd -> layer that it is of

        def note(layer: Any, _: Any, result: Tensor) -> None:
            made[result.grad_fn] = layer

        layers = self.layers().values()
        with hooked(layer.register_forward_hook(note) for layer in layers), torch.enable_grad():
            waiting = [self.module(self.example().requires_grad_()).grad_fn]
        found, seen = [], set()
        while waiting:
            node = waiting.pop()
            if node in made:
                found.append(made[node])
            elif node is not None and node not in seen:
                seen.add(node)
                waiting += [before for before, _ in node.next_functions]
        return list(dict.fromkeys(found))

    def widths(self) -> dict[str, tuple[int, ...]]:
        """Of a ViT feed-forward widths and heads of each layer, else output channels of what has weights."""
        if self.architecture is not None:
            return self.stack.widths()
        layers = self.layers().values()
        return {
            kind.__name__.lower(): tuple(_width(layer) for layer in layers if isinstance(layer, kind))
            for kind in (nn.Conv2d, nn.Linear)
            if any(isinstance(layer, kind) for layer in layers)
        }

    def layer_names(self, facts: Facts) -> dict[str, tuple[str, ...]]:
        """Kind -> names, of the same layers as `widths`."""
        if self.architecture is not None:
            return self.stack.layer_names(facts.kept_layers)
        layers = self.layers().items()
        return {
            kind: tuple(name for name, layer in layers if type(layer).__name__.lower() == kind)
            for kind in self.widths()
        }

    def macs(self) -> int:
        """Multiply-accumulates for one image: products with weights, and the two of attention."""
        plain = sdpa_kernel(SDPBackend.MATH)  # whose products are counted; those of the fused kernels are not
        with torch.no_grad(), plain, FlopCounterMode(display=False) as counter:
            self.module(self.example())
        return int(counter.get_total_flops()) // 2

    def example(self) -> Tensor:
        """One image, for tracing."""
        height, width, channels = self.shape
        return torch.zeros(1, channels, height, width)

    # -- inputs

    @cached_property
    def processor(self) -> ImageProcessor:
        return ImageProcessor(self.preprocessing)

    def run(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Logits (batch, classes)."""
        return cast(Tensor, self.module(**inputs))

    def stock_view(self, inputs: Mapping[str, Tensor]) -> tuple[str, str, Tensor]:
        return "AutoModelForImageClassification", "logits", self.run(inputs)

    def inputs(self, images: Images) -> dict[str, Tensor]:
        """uint8 [batch, height, width, channels] -> normalised float32 [batch, channels, height, width]."""
        return tensors(self.processor.inputs(images))


open_model = ImageClassifier.open


def build(builder: str, kwargs: Mapping[str, Any]) -> nn.Module:
    """The net that `package.module:function` makes; raises ModelError where it makes none."""
    module, colon, name = builder.partition(":")
    try:
        if not colon:
            raise AttributeError("no colon between module and function")
        net = getattr(importlib.import_module(module), name)(**kwargs)
    except (ImportError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        advice = "install the package it is in"
        if isinstance(error, ImportError) and error.name in ("timm", "torchvision"):
            advice = "pip install '.[vision]', in an environment of its own"
        elif "torchvision::" in str(error):
            advice = "torch and torchvision are of different builds: pip install '.[vision]' 'torch<2.13'"
        raise ModelError(
            f"cannot build the net {builder}",
            found=" ".join(str(error).split()),
            allowed="package.module:function, with keyword arguments it takes",
            next=advice,
        ) from error
    if not isinstance(net, nn.Module):
        raise ModelError(f"{builder} makes no torch module", found=type(net).__name__)
    return net


def replay(net: nn.Module, history: list[Any], example: Tensor) -> None:
    """Cut the channels that pruning cut, so that the weights fit."""
    if history:
        import torch_pruning as tp

        with torch.enable_grad(), warnings.catch_warnings():  # torch-pruning traces by gradients
            warnings.filterwarnings("ignore", "Unwrapped parameters", UserWarning)  # see prune/pruner.py
            graph = tp.DependencyGraph().build_dependency(net.eval(), example_inputs=example)
        graph.load_pruning_history([(name, bool(out), list(indices)) for name, out, indices in history])


def _fill(net: nn.Module, folder: Path) -> None:
    """Weights of a folder into `net`; of a layer that has two names, one is enough."""
    given = load_file(folder / "model.safetensors")
    try:
        missing, unexpected = net.load_state_dict(given, strict=False)
        taken = net.state_dict()
        filled = {taken[name].data_ptr() for name in given if name in taken}
        if empty := [name for name in missing if taken[name].data_ptr() not in filled]:
            raise RuntimeError(f"nothing for {len(empty)} tensors, e.g. {min(empty)}")
        if unexpected:
            raise RuntimeError(f"no place for {len(unexpected)} tensors, e.g. {min(unexpected)}")
        if lost := [n for n, weight in given.items() if not torch.equal(weight.to(taken[n].dtype), taken[n])]:
            raise RuntimeError(f"{min(lost)} is shared by two layers, and their numbers differ")
    except RuntimeError as error:
        raise ModelError(
            f"the weights in {folder} do not fit the net its config.json names",
            found=" ".join(str(error).split())[:300],
            next="fetch the model again, config.json, pruning.json and weights of one revision",
        ) from None


def _load_pruned(folder: Path, history: list[Any], example: Tensor) -> nn.Module:
    """A net of transformers with fewer channels than its config says."""
    config = from_folder(transformers.AutoConfig, folder)
    net: nn.Module = transformers.AutoModelForImageClassification.from_config(config)
    replay(net, history, example)
    _fill(net, folder)
    return net


def _width(layer: nn.Conv2d | nn.Linear) -> int:
    return layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features
