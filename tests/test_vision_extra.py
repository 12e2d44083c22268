"""Nets of torchvision and timm through all stages. Skipped without the extra: pip install '.[vision]'."""

import json

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from compress import tasks
from compress.config.data import ImageData, ImageSet, Resize
from compress.config.export import TorchExport
from compress.config.model import ImageClassifierModel
from compress.config.prune import ChannelPrune
from compress.config.quantize import Int8Static
from compress.data import open_splits
from compress.data.images import load_images
from compress.data.pictures import preparation
from compress.errors import ModelError
from compress.export import export
from compress.models.preprocessing import pixel_values, read_preprocessing
from compress.prune import prune
from compress.quantize import quantize
from compress.schema.quantization import Coverage, LayerErrors
from compress.stages.result import read_result
from compress.tasks.image_classification.model import build

timm = pytest.importorskip("timm")
pytest.importorskip("torchvision")
pytestmark = pytest.mark.slow

SIDE = 32
TORCHVISION = {
    "resnet18": {},
    "mobilenet_v2": {"width_mult": 0.35},  # ReLU6
    "mobilenet_v3_small": {"width_mult": 0.5},  # hard swish, squeeze and excite
}
TIMM = (
    "resnet10t",
    "mobilenetv3_small_050",
    "tf_mobilenetv3_small_minimal_100",  # SAME padding
    "test_efficientnet",  # SiLU, squeeze and excite
    "test_convnext",
)


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    """Coloured images of another size than the nets', whose class is which third of the rows is bright."""
    folder, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name, count in (("train", 40), ("test", 6)):
        for label in range(3):
            (folder / name / str(label)).mkdir(parents=True)
            for number in range(count):
                image = random.integers(0, 120, (48, 60, 3)).astype(np.uint8)
                image[16 * label : 16 * label + 16] += 120
                Image.fromarray(image).save(folder / name / str(label) / f"{number}.png")
    sets = {f"{name}_set": ImageSet(source=f"path:{folder}/{name}") for name in ("train", "test")}
    open_splits(ImageData(**sets, resize=Resize(size=SIDE), calibration=16, select=6), folder / "splits")
    return folder / "splits"


def random_statistics(net):
    """The identity would hide what forgets a batch normalisation."""
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.2)
            torch.nn.init.normal_(module.running_mean, std=0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.eval()


def published(name, folder):
    """The net and the configuration that names its folder: as timm publishes it, or weights alone."""
    torch.manual_seed(0)
    if name in TIMM:
        net = random_statistics(timm.create_model(name, num_classes=3))
        timm.models.save_for_hf(net, folder, safe_serialization=True)
        config = json.loads((folder / "config.json").read_text())
        config["pretrained_cfg"]["input_size"] = [3, SIDE, SIDE]
        (folder / "config.json").write_text(json.dumps(config))
        return net, ImageClassifierModel(source=f"path:{folder}")
    builder, kwargs = f"torchvision.models:{name}", {"num_classes": 3, **TORCHVISION[name]}
    net = random_statistics(build(builder, kwargs))
    save_file(net.state_dict(), folder / "model.safetensors")
    prepared = {"size": SIDE, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(prepared))
    return net, ImageClassifierModel(source=f"path:{folder}", builder=builder, builder_kwargs=kwargs)


def logits(folder, pixels, level=onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"pixel_values": pixels})[0]


@pytest.mark.parametrize("name", [*TORCHVISION, *TIMM])
def test_pruned_exported_quantized(name, splits, tmp_path):
    folders = {step: tmp_path / step for step in ("published", "loaded", "pruned", "graph", "int8")}
    for folder in folders.values():
        folder.mkdir()
    net, config = published(name, folders["published"])
    tasks.import_model(config, folders["loaded"])
    model, images = tasks.load(folders["loaded"]), load_images(splits).test.images
    with torch.no_grad():
        inputs = model.inputs(images)
        assert torch.allclose(model.run(inputs), net(inputs["pixel_values"]), atol=1e-5)
    half = ChannelPrune(keep=0.5, images=16, batch_norm_images=64)
    prune(half, folders["loaded"], splits, folders["pruned"])
    small = tasks.load(folders["pruned"])
    assert small.macs() < 0.6 * model.macs()
    export(TorchExport(), folders["pruned"], splits, folders["graph"])
    static = Int8Static(examples=16)
    quantize(static, ("avx512_vnni",), folders["graph"], folders["pruned"], splits, folders["int8"])
    assert read_result(folders["int8"]).fact("coverage", Coverage).coverage_macs == 1
    assert read_result(folders["int8"]).fact("layer_errors", LayerErrors).worst_alone_db > 20
    pixels = small.inputs(images)["pixel_values"].numpy()
    plain = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    one, other = logits(folders["int8"], pixels), logits(folders["int8"], pixels, plain)
    assert (one * other).sum() / np.linalg.norm(one) / np.linalg.norm(other) > 0.98


def test_a_net_of_timm_is_trained_from_nothing():
    net = build("timm:create_model", {"model_name": "resnet10t", "num_classes": 3, "in_chans": 1})
    assert net(torch.zeros(2, 1, SIDE, SIDE)).shape == (2, 3)


def test_an_unknown_architecture(tmp_path):
    published("resnet10t", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architecture": "resnet10u"}))
    with pytest.raises(ModelError, match=r"Unknown model \(resnet10u\)"):
        tasks.import_model(ImageClassifierModel(source=f"path:{tmp_path}"), tmp_path)


@pytest.mark.parametrize(("crop", "method"), [(0.875, "bicubic"), (0.95, "bilinear"), (1.0, "bicubic")])
def test_images_are_prepared_as_timm_prepares_them(crop, method, tmp_path):
    from compress.models import timm_checkpoint

    published("resnet10t", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["pretrained_cfg"] |= {"crop_pct": crop, "interpolation": method}
    preprocessing = timm_checkpoint.converted(config)[1]
    given = config["pretrained_cfg"]
    transform = timm.data.create_transform(
        input_size=given["input_size"],
        interpolation=method,
        mean=given["mean"],
        std=given["std"],
        crop_pct=crop,
    )
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    read, prepare = read_preprocessing(tmp_path), preparation(tmp_path, Resize())
    random = np.random.default_rng(0)
    for shape in ((48, 60, 3), (61, 35, 3), (20, 20, 3)):
        image = Image.fromarray(random.integers(0, 256, shape).astype(np.uint8))
        ours = pixel_values(prepare(image)[None], read)[0]
        assert np.allclose(ours, transform(image).numpy(), atol=1e-5)
