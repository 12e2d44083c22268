"""Folders of timm become checkpoints of ours; timm itself is stood in for by a net of ours."""

import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from compress import tasks
from compress.config.model import ImageClassifierModel
from compress.errors import ModelError
from compress.models import image_nets, timm_checkpoint
from compress.tasks.image_classification.model import build

ROOT = Path(__file__).resolve().parents[2]
SIZES = {"widths": [4, 8], "blocks": 1}
# As timm 1.0's save_for_hf writes it.
CONFIG = {
    "architecture": "resnet10t",
    "num_classes": 3,
    "num_features": 8,
    "global_pool": "avg",
    "label_names": ["cat", "dog", "owl"],
    "model_args": {"num_classes": 3, **SIZES},
    "pretrained_cfg": {
        "tag": "c3_in1k",
        "custom_load": False,
        "input_size": [1, 8, 8],
        "fixed_input_size": False,
        "interpolation": "bicubic",
        "crop_pct": 0.875,
        "crop_mode": "center",
        "mean": [0.45],
        "std": [0.22],
        "num_classes": 3,
        "first_conv": "conv1.0",
        "classifier": "fc",
        "license": "apache-2.0",
    },
}


def changed(**changes):
    pretrained = {**CONFIG["pretrained_cfg"], **changes.pop("pretrained_cfg", {})}
    return {**CONFIG, "pretrained_cfg": pretrained, **changes}


@pytest.fixture
def timm(monkeypatch):
    """A module `timm` whose create_model takes the names and arguments that are given here."""

    def create_model(model_name, num_classes=3, pretrained=False, **arguments):
        if pretrained:  # as the stock reader opens a folder
            folder = Path(model_name.removeprefix("local-dir:"))
            described = json.loads((folder / "config.json").read_text())
            net = create_model(described["architecture"], 3, **SIZES)
            net.load_state_dict(load_file(folder / "model.safetensors"))
            net.pretrained_cfg = described["pretrained_cfg"]
            return net
        if model_name != "resnet10t":
            raise RuntimeError(f"Unknown model ({model_name})")
        return image_nets.resnet(classes=num_classes, **arguments)

    def create_transform(**_):
        """Of CONFIG: the shorter side to 9 pixels, of which the 8 in the middle stay."""

        def transform(image):
            sides = [9 * side // min(image.size) for side in image.size]
            left, top = (round((side - 8) / 2) for side in sides)
            small = image.resize(sides, Image.Resampling.BICUBIC).crop((left, top, left + 8, top + 8))
            return torch.from_numpy((np.asarray(small, np.float32)[None] / 255 - 0.45) / np.float32(0.22))

        return transform

    stand_in = types.ModuleType("timm")
    stand_in.__version__ = "1.0"
    stand_in.create_model = create_model
    stand_in.data = types.SimpleNamespace(
        create_transform=create_transform, resolve_model_data_config=lambda model: {}
    )
    monkeypatch.setitem(sys.modules, "timm", stand_in)


@pytest.fixture
def folder(tmp_path):
    """What the hub serves, with random weights."""
    published = tmp_path / "published"
    published.mkdir()
    (published / "config.json").write_text(json.dumps(CONFIG))
    torch.manual_seed(0)
    save_file(image_nets.resnet(classes=3, **SIZES).state_dict(), published / "model.safetensors")
    return published


def imported(folder, out, **settings):
    out.mkdir(exist_ok=True)
    tasks.import_model(ImageClassifierModel(source=f"path:{folder}", **settings), out)
    return tasks.load(out)


def test_a_folder_of_timm_needs_no_builder(folder, tmp_path, timm):
    model = imported(folder, tmp_path / "out")
    torch.manual_seed(0)
    net = image_nets.resnet(classes=3, **SIZES).eval()
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1)).astype(np.uint8)
    pixels = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - 0.45) / 0.22
    with torch.no_grad():
        assert torch.allclose(model.run(model.inputs(images)), net(pixels), atol=1e-5)
    assert model.classes == ["cat", "dog", "owl"]
    assert model.shape == (8, 8, 1)
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"config.json", "preprocessor_config.json"}


def test_images_of_another_size_are_left_to_the_checkpoint(folder, tmp_path, timm):
    model = imported(folder, tmp_path / "out")
    with pytest.raises(ModelError) as raised:
        model.inputs(np.zeros((2, 9, 12, 1), np.uint8))
    assert "next:    leave data.resize.size at 0" in str(raised.value)


def test_older_folders_have_all_in_one_place_and_no_names():
    old = {"architecture": "resnet10t", **CONFIG["pretrained_cfg"]}
    described, preprocessing = timm_checkpoint.converted(old)
    assert described["id2label"] == {"0": "0", "1": "1", "2": "2"}
    assert described["builder_kwargs"] == {"architecture": "resnet10t", "num_classes": 3}
    assert preprocessing["size"] == {"height": 8, "width": 8}


def test_names_by_number():
    described, _ = timm_checkpoint.converted(changed(label_names={"0": "a", "2": "c"}))
    assert described["id2label"] == {"0": "a", "2": "c"}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"architecture": "x"}, r"not how images are prepared\n  found: +KeyError: 'input_size'"),
        (changed(pretrained_cfg={"input_size": [8, 8]}), "not how images are prepared"),
        (changed(pretrained_cfg={"mean": None}), "not how images are prepared"),
        (changed(pretrained_cfg={"mean": [0.4, 0.4, 0.4]}), r"found: +3 and 1 for 1 channels"),
        (changed(model_args={"in_chans": 3}), r"found: +1 and 1 for 3 channels"),
    ],
)
def test_a_config_that_lacks_something(config, said):
    with pytest.raises(ModelError, match=said):
        timm_checkpoint.converted(config)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"model_args": {"checkpoint_path": "evil.pth"}},
            r"to load something\n.*checkpoint_path",
        ),
        ({"model_args": {"pretrained": True}}, "wants timm to load something"),
        ({"architecture": "hf-hub:some/net"}, "not a name of timm's"),
        ({"architecture": "resnet1O"}, r"Unknown model \(resnet1O\)"),
        ({"model_args": {"depth": 3}}, "depth"),
    ],
)
def test_a_config_that_asks_for_what_is_not_done(changes, said, folder, tmp_path, timm):
    (folder / "config.json").write_text(json.dumps(changed(**changes)))
    with pytest.raises(ModelError, match=said):
        imported(folder, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_without_the_extra(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match=r"next: +pip install '\.\[vision\]', in an environment of its own"):
        imported(folder, tmp_path / "out")


def test_torch_and_torchvision_of_different_builds(monkeypatch):
    """What torchvision raises when it is imported beside a torch it was not built for."""
    broken = types.ModuleType("broken_torchvision")

    def fail(**_):
        raise RuntimeError("operator torchvision::nms does not exist")

    broken.resnet18 = fail
    monkeypatch.setitem(sys.modules, "broken_torchvision", broken)
    with pytest.raises(ModelError, match=r"next: +torch and torchvision are of different builds"):
        build("broken_torchvision:resnet18", {})


def test_the_base_is_imported_without_the_extra():
    """None of our modules needs timm, torchvision or pyarrow before a model or a file of theirs is opened."""
    script = (
        "import sys\nfor name in ('timm', 'torchvision', 'pyarrow'): sys.modules[name] = None\n"
        "import compress.cli, compress.data\n"
        "from compress.models import timm_checkpoint\n"
        "from compress.tasks.image_classification import model\nprint('fine')"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "fine\n", done.stderr
