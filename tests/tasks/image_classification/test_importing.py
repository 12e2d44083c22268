"""Nets of one's own that cannot be served are refused as they are read."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from compress import tasks
from compress.config.model import ImageClassifierModel
from compress.errors import ModelError


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, pixels):
        return self.head(self.norm(self.first(pixels)).relu().mean((2, 3)))


class Pair(Plain):
    def forward(self, pixels):
        return super().forward(pixels), pixels


class Named(Plain):
    def forward(self, pixels):
        return {"logits": super().forward(pixels)}


class TwoInputs(Plain):
    def forward(self, pixels, mask):
        return super().forward(pixels * mask)


class OfTheBatch(Plain):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(4, track_running_stats=False)


class WithoutTheMean(Plain):
    def forward(self, pixels):
        return super().forward(pixels - pixels.mean(0, keepdim=True))


class Drops(Plain):
    def forward(self, pixels):
        return super().forward(nn.functional.dropout(pixels, 0.5))


def imported(net, tmp_path):
    torch.manual_seed(0)
    published, out = tmp_path / "published", tmp_path / "out"
    published.mkdir()
    out.mkdir()
    save_file(net().state_dict(), published / "model.safetensors")
    sizes = {"size": {"height": 8, "width": 8}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (published / "preprocessor_config.json").write_text(json.dumps(sizes))
    builder = f"{__name__}:{net.__name__}"
    tasks.import_model(ImageClassifierModel(source=f"path:{published}", builder=builder), out)
    return tasks.load(out)


def test_a_net_that_stores_its_statistics(tmp_path):
    assert imported(Plain, tmp_path).classes == ["0", "1", "2"]


def test_a_language_model_is_no_classifier_of_images(tmp_path):
    described = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    (tmp_path / "config.json").write_text(json.dumps(described))
    said = r"of a classifier of images\n  found: +llama\n  allowed: .*vit(.|\n)*try model=causal_lm"
    with pytest.raises(ModelError, match="unknown architecture " + said):
        tasks.import_model(ImageClassifierModel(source=f"path:{tmp_path}"), tmp_path)


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (Pair, r"something else than logits\n  found: +a tuple\n(.|\n)*next: +name a function"),
        (Named, r"something else than logits\n  found: +a dict\n"),
        (
            TwoInputs,
            r"called with pixels alone\n  found: +TypeError: .*'mask'\n(.|\n)*next: +name a function",
        ),
        (OfTheBatch, "answer for an example depends on the others of its batch"),
        (WithoutTheMean, "answer for an example depends on the others of its batch"),
        (Drops, "answer for an example is another one each time"),
    ],
)
def test_nets_that_cannot_be_served(net, said, tmp_path):
    with pytest.raises(ModelError, match=said):
        imported(net, tmp_path)
