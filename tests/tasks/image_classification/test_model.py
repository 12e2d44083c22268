"""Classifiers of images: what is saved is what is loaded, and stock transformers agrees."""

import json

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from compress import models, tasks
from compress.config.model import ImageClassifierModel
from compress.errors import ModelError
from compress.models.preprocessing import pixel_values, read_preprocessing, shape_of
from compress.prune.width import keep_rows
from compress.schema.workload import Workload
from compress.tasks.image_classification.model import build

NETS = ("resnet", "depthwise", "vit")
PREPARED = {"size": {"height": 8, "width": 8}, "image_mean": [0.4], "image_std": [0.3]}


def images(count=5):
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 1)).astype(np.uint8)


def logits(model, of=None):
    with torch.no_grad():
        return model.run(model.inputs(images() if of is None else of))


@pytest.mark.parametrize("name", NETS)
def test_a_saved_model_gives_equal_logits(name, image_checkpoints, tmp_path):
    model = tasks.load(image_checkpoints[name])
    model.save(tmp_path, model.facts.after("nothing"))
    again = tasks.load(tmp_path)
    assert torch.equal(logits(model), logits(again))
    assert again.facts.lineage == ("nothing",)
    assert logits(model).std() > 1e-3


def test_stock_transformers_loads_the_vit(image_checkpoints):
    ours = tasks.load(image_checkpoints["vit"])
    stock = transformers.AutoModelForImageClassification.from_pretrained(image_checkpoints["vit"]).eval()
    with torch.no_grad():
        expected = stock(**ours.inputs(images())).logits
    assert torch.allclose(logits(ours), expected, atol=1e-6)
    assert stock.config.id2label == {0: "top", 1: "middle", 2: "bottom"}


def test_a_net_of_transformers_without_attention(tmp_path):
    sizes = {"embedding_size": 4, "hidden_sizes": [4, 6], "depths": [1, 1], "layer_type": "basic"}
    config = transformers.ResNetConfig(num_channels=1, num_labels=3, **sizes)
    stock = transformers.ResNetForImageClassification(config).eval()
    for folder in ("published", "out"):
        (tmp_path / folder).mkdir()
    stock.save_pretrained(tmp_path / "published")
    prepared = {"image_processor_type": "ViTImageProcessor", **PREPARED}
    (tmp_path / "published" / "preprocessor_config.json").write_text(json.dumps(prepared))
    tasks.import_model(ImageClassifierModel(source=f"path:{tmp_path}/published"), tmp_path / "out")
    ours = tasks.load(tmp_path / "out")
    with torch.no_grad():
        assert torch.allclose(logits(ours), stock(**ours.inputs(images())).logits, atol=1e-6)
    with pytest.raises(ModelError, match=r"found: +resnet, a net without.*\n.*\n  next: +prune=channels"):
        _ = ours.stack


@pytest.mark.parametrize("name", NETS)
def test_the_summary_is_of_the_model(name, image_checkpoints):
    model, summary = tasks.load(image_checkpoints[name]), models.read_summary(image_checkpoints[name])
    assert summary.parameters == sum(p.numel() for p in model.module.parameters())
    assert summary.widths == model.widths()
    if name == "vit":
        assert summary.layer_names == dict.fromkeys(("ffn", "heads"), ("layer 0", "layer 1"))
    else:
        for kind, names in summary.layer_names.items():
            widths = [len(model.module.net.get_submodule(layer).weight) for layer in names]
            assert tuple(widths) == summary.widths[kind]
    assert "pixel_values" in summary.card["inputs"]
    stored = models.read_check_inputs(image_checkpoints[name])
    assert stored["pixel_values"].shape == (2, 1, 8, 8)


def test_macs_by_hand(image_checkpoints):
    """depthwise, 8 -> 8 -> 12 channels: stem, depthwise and pointwise on 8 x 8, then both on 4 x 4, head."""
    expected = 64 * 8 * 9 + 64 * (8 * 9 + 8 * 8) + 16 * (8 * 9 + 8 * 12) + 12 * 3
    assert tasks.load(image_checkpoints["depthwise"]).macs() == expected


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_macs_of_a_vit_hold_the_two_products_of_attention(attention, image_checkpoints):
    """4 patches of 16 pixels and the class token, width 16, 2 layers."""
    tokens = 4 + 1
    weights = 4 * 16 * 16 + 2 * 16 * 32
    expected = 4 * 16 * 16 + 2 * (tokens * weights + 2 * tokens * tokens * 16) + 16 * 3
    assert tasks.load(image_checkpoints["vit"], attention=attention).macs() == expected


def test_macs_of_a_pruned_vit(image_checkpoints):
    """What is cut is no longer counted, in the products of attention neither: 2 of 4 heads of one layer."""
    model = tasks.load(image_checkpoints["vit"])
    for linear in (first := model.stack.layers()[0]).query, first.key, first.value:
        keep_rows(linear, torch.arange(4, 12))
    first.attention_output.weight = torch.nn.Parameter(first.attention_output.weight[:, 4:12])
    first.attention_output.in_features = 8
    left = 5 * (4 * 16 * 8 + 2 * 16 * 32) + 2 * 5 * 5 * 8 + 5 * (4 * 16 * 16 + 2 * 16 * 32) + 2 * 5 * 5 * 16
    assert model.macs() == 4 * 16 * 16 + left + 16 * 3
    assert model.widths()["heads"] == (2, 4)


def test_pixels_by_hand():
    found = pixel_values(
        np.array([[[[0], [255]]]], np.uint8),
        {"size": {"height": 1, "width": 2}, "image_mean": [0.5], "image_std": [0.25]},
    )
    assert found.tolist() == [[[[-2.0, 2.0]]]]


def test_images_of_another_shape_are_not_resized(image_checkpoints):
    model = tasks.load(image_checkpoints["resnet"])
    for shape, advice in (
        ((2, 9, 8, 1), r"leave data\.resize\.size at 0"),
        ((2, 8, 8, 3), "made for such images"),
    ):
        with pytest.raises(ModelError, match=f"another shape than the model's(.|\n)*next: .*{advice}"):
            model.inputs(np.zeros(shape, np.uint8))


@pytest.mark.parametrize(
    ("preprocessing", "shape"),
    [
        ({"size": {"height": 32, "width": 32}}, (32, 32)),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, (224, 224)),  # microsoft/resnet-50
        (
            {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}},
            (224, 224),  # google/mobilenet_v2_1.0_224
        ),
        # facebook/deit-base-distilled-patch16-224
        ({"size": {"height": 256, "width": 256}, "crop_size": 224}, (224, 224)),
        (
            {"size": {"height": 64, "width": 64}, "crop_size": {"height": 8}, "do_center_crop": False},
            (64, 64),
        ),
    ],
)
def test_sizes_as_published_models_name_them(preprocessing, shape, tmp_path):
    whole = {**preprocessing, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(whole))
    assert shape_of(read_preprocessing(tmp_path)) == (*shape, 3)


def test_a_workload_repeats_what_there_is(image_checkpoints):
    model = tasks.load(image_checkpoints["resnet"])
    found = model.processor.workload(images(3), Workload(7, 8))["pixel_values"]
    assert found.shape == (7, 1, 8, 8)
    assert np.array_equal(found[0], found[3])
    with pytest.raises(ModelError, match="1x9"):
        model.processor.workload(images(), Workload(1, 9))


def test_a_users_net_is_another_model_when_its_file_changes(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "net_of_a_user.py"
    sums = []
    for text in ("", "\n", ""):
        file.write_text(text)
        model = ImageClassifierModel(source=f"path:{tmp_path}", sha256="0" * 64, builder="net_of_a_user:make")
        sums.append(tasks.builder_sum(model))
    assert sums[0] == sums[2] != sums[1]
    assert tasks.builder_sum(ImageClassifierModel(source="path:.")) is None
    assert tasks.builder_sum(ImageClassifierModel(source="path:.", builder="no.such:net")) is None


def test_a_function_of_a_stranger_is_not_run(image_checkpoints, copy_of, tmp_path):
    folder = copy_of(image_checkpoints["resnet"])
    config = json.loads((folder / "config.json").read_text())
    config["builder"] = "os:abort"
    (folder / "config.json").write_text(json.dumps(config))
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match="a function that the configuration does not name"):
        tasks.import_model(ImageClassifierModel(source=f"path:{folder}"), tmp_path / "out")


def test_weights_alone_and_a_function_of_the_user(image_checkpoints, copy_of, tmp_path):
    """What torchvision's models come as: no config.json, and the configuration names who builds the net."""
    folder, dense = copy_of(image_checkpoints["resnet"]), tasks.load(image_checkpoints["resnet"])
    for name in ("config.json", "compress.json", "summary.json"):
        (folder / name).unlink()
    builder, kwargs = dense.config["builder"], dense.config["builder_kwargs"]
    (tmp_path / "out").mkdir()
    named = ImageClassifierModel(source=f"path:{folder}", builder=builder, builder_kwargs=kwargs)
    tasks.import_model(named, tmp_path / "out")
    model = tasks.load(tmp_path / "out")
    assert torch.equal(logits(model), logits(dense))
    assert model.classes == ["0", "1", "2"]
    with pytest.raises(ModelError, match="no model in"):
        tasks.import_model(ImageClassifierModel(source=f"path:{folder}"), tmp_path / "out")


@pytest.mark.parametrize(
    "builder", ["nothing", "no.such:net", "compress.models.image_nets:nothing", "os:getcwd"]
)
def test_builders_that_build_nothing(builder):
    with pytest.raises(ModelError):
        build(builder, {})


def test_wrong_arguments_of_a_builder():
    with pytest.raises(ModelError, match="depth"):
        build("compress.models.image_nets:resnet", {"depth": 3})


@pytest.mark.parametrize("name", NETS)
def test_weights_that_do_not_fit(name, image_checkpoints, copy_of):
    folder = copy_of(image_checkpoints[name])
    weights = load_file(folder / "model.safetensors")
    weights.pop(sorted(weights)[0])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError):
        tasks.load(folder)


def test_missing_preprocessing(image_checkpoints, copy_of):
    folder = copy_of(image_checkpoints["resnet"])
    (folder / "preprocessor_config.json").write_text("{}")
    with pytest.raises(ModelError, match="does not say how images are prepared"):
        tasks.load(folder)
