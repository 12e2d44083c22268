"""The whole pipeline for classifiers of images: a baseline is trained, quantized, measured and shipped."""

import base64
import io
import json
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from PIL import Image
from rich.console import Console

from compress import pipeline, tasks
from compress.artifact import verify
from compress.benchmark.speed import load_speed
from compress.cli.candidates import Workbench
from compress.cli.train import train
from compress.config.compose import load_config
from compress.errors import ConfigError, DataError, ModelError, SourceError
from compress.schema.report import Report
from compress.schema.speed import INTEGER
from compress.stages.runner import StageRunner
from compress.stages.store import Store


def overrides(image_data, source, *more):
    sets = [
        word
        for key in ("train_set", "test_set")
        for each in [getattr(image_data, key)]
        for word in (
            f"data.{key}.source='{each.source}'",
            f"data.{key}.format=idx",
            f"data.{key}.images={each.images}",
            f"data.{key}.labels={each.labels}",
        )
    ]
    return [
        *("model=image_classifier", f"model.source='path:{source}'", "data=images", *sets),
        *("data.classes=[top,middle,bottom]", "data.calibration=30", "data.select=60"),
        *("export=plain", "quantize=int8_static", "evaluate=image_classification"),
        *("benchmark.workloads=[1x8]", "benchmark.max_seconds=1", "name=stripes", *more),
    ]


@pytest.fixture(scope="session")
def store(once):
    """Of all tests: what the dense nets are and do is computed once."""
    return Store(once("vision-cache", lambda folder: None) / "store")


def runner(store, **changes):
    return StageRunner(store, Console(file=io.StringIO()), "image_classification", **changes)


@pytest.fixture(scope="session")
def earlier(once, image_data, image_checkpoints, store):
    """Folder of a finished run of the ResNet."""

    def build(folder):
        pipeline.run(
            load_config(overrides(image_data, image_checkpoints["resnet"])), folder / "run", runner(store)
        )

    return once("vision-resnet", build) / "run"


def test_a_resnet_is_quantized_measured_and_shipped(earlier):
    check_net("resnet", earlier)


@pytest.mark.slow
def test_a_vit_is_quantized_measured_and_shipped(image_data, image_checkpoints, store, tmp_path):
    config = load_config(overrides(image_data, image_checkpoints["vit"]))
    pipeline.run(config, tmp_path / "run", runner(store))
    check_net("vit", tmp_path / "run")


def check_net(net, folder):
    report = Report.load(folder / "report.json")
    assert [variant.name for variant in report.variants] == ["dense", "int8"]
    assert report.primary_metric == "accuracy"
    dense, int8 = report.variants
    assert set(int8.quality) == {"accuracy", "nll"}
    assert set(int8.fidelity) == {"agreement", "kl"}
    assert int8.fidelity["agreement"].value > 0.8
    assert int8.quantization.coverage_macs == pytest.approx(1 if net == "resnet" else 20528 / 21552)
    if net == "resnet":  # kernels of quantized convolutions are packed away before the trace sees them
        integers = [each for each in int8.profile["1x8"].operators if each.kind == INTEGER]
        assert sum(each.macs for each in integers) == int8.macs
        assert sum(each.weight_bytes for each in integers) > 0.9 * int8.parameters
    assert dense.macs == int8.macs > 0
    assert verify(folder / "artifact").name == "stripes"
    assert "image-classification" in (folder / "artifact" / "README.md").read_text()
    assert "accuracy" in (folder / "report.html").read_text()


@pytest.mark.slow
def test_the_report_of_a_pruned_net(image_data, image_checkpoints, image_splits, store, tmp_path):
    """What became of classes, images and layers gets as far as the page, from report.json alone."""
    words = ("prune=channels", "prune.importance=magnitude", "prune.keep=0.5", "prune.round_to=2")
    more = ("prune.images=30", "prune.sensitivity=true")
    config = load_config(overrides(image_data, image_checkpoints["depthwise"], *words, *more))
    pipeline.run(config, tmp_path / "run", runner(store))
    report = Report.load(tmp_path / "run" / "report.json")
    dense, pruned, int8 = report.variants
    assert (dense.classification.lost, dense.classification.gained) == (0, 0)
    assert pruned.classification.changed == ()
    assert report.verdict.best == "int8"
    found = int8.classification
    assert (found.lost - found.gained) / 60 == pytest.approx(int8.drop_from_dense["accuracy"].value)
    assert sum(each.examples for each in found.per_class) == 60
    assert found.changed
    for each in found.changed:
        image = image_splits.test.images[each.example, ..., 0]
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(each.png)))), image)
        assert each.label == image_splits.classes[image_splits.test.labels[each.example]]
    assert dense.layer_names == int8.layer_names
    assert dense.layer_names["linear"] == ("head",)
    groups = {group.layer: group.channels for group in report.pruning_sensitivity.groups}
    assert groups["body.0.0"] == 8
    html = (tmp_path / "run" / "report.html").read_text()
    assert all(f'id="{name}"' in html for name in ("answers", "classes", "changed", "widths", "cuts"))
    assert "calibration error" in (tmp_path / "run" / "artifact" / "README.md").read_text()


def test_layers_stay_in_float_and_their_price_is_told(image_data, image_checkpoints, store, tmp_path):
    words = ["quantize.min_cosine=0.999999", "quantize.min_coverage=0.5", "quantize.calibrator=mse"]
    config = load_config(overrides(image_data, image_checkpoints["depthwise"], *words))
    report = pipeline.run(config, tmp_path / "run", runner(store))
    assert [variant.name for variant in report.variants] == ["dense", "int8_all", "int8"]
    _, every, some = report.variants
    assert 0.5 <= some.quantization.coverage_macs < every.quantization.coverage_macs == 1
    assert {"left in float for quality"} == {each.reason for each in some.quantization.skipped}
    assert verify(tmp_path / "run" / "artifact").name == "stripes"


@pytest.mark.slow
def test_a_net_that_is_trained_with_its_rounding(image_data, image_checkpoints, store, tmp_path):
    words = ["quantize=int8_qat", "quantize.equalize=true", "quantize.batch_size=32"]
    config = load_config(overrides(image_data, image_checkpoints["depthwise"], *words))
    report = pipeline.run(config, tmp_path / "run", runner(store))
    assert [variant.name for variant in report.variants] == ["dense", "int8"]
    assert report.variants[1].quantization.coverage_macs == 1
    assert report.config["quantize"]["epochs"] == 1
    assert verify(tmp_path / "run" / "artifact").name == "stripes"


def test_the_code_of_the_card_runs(earlier):
    card = (earlier / "artifact" / "README.md").read_text()
    code = card.partition("```python\n")[2].partition("```")[0]
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=earlier / "artifact", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.strip("[]\n").replace("'", "").split(", ")) <= {"top", "middle", "bottom"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("quantize", "covered"),
    [("int8_static", 5168 / 6192), ("int8_dynamic", 5168 / 6192)],
)
def test_a_pruned_vit(
    quantize, covered, image_data, image_checkpoints, image_splits, store, tmp_path, reopened_here
):
    words = overrides(
        image_data,
        image_checkpoints["vit"],
        *("prune=transformer", "prune.keep={ffn: 0.5, heads: 0.5, layers: 0.5}", "prune.round_to=8"),
        *("recover=finetune", "recover.epochs=2", "recover.optimizer=adamw", "recover.learning_rate=0.002"),
        *("recover.batch_size=16", "recover.augment=false", f"quantize={quantize}"),
        f"quantize.min_coverage={covered - 0.05}",  # the patches' convolution stays in float
    )
    report = pipeline.run(load_config(words), tmp_path / "run", runner(store))
    dense, recovered, int8 = report.variants
    assert dense.widths == {"ffn": (32, 32), "heads": (4, 4)}
    assert recovered.widths == int8.widths == {"ffn": (16,), "heads": (2,)}
    assert int8.macs < dense.macs / 2
    assert int8.quantization.coverage_macs == pytest.approx(covered)
    assert "pruned: stock transformers reloads the checkpoint" in {gate.name for gate in report.gates}
    artifact = tmp_path / "run" / "artifact"
    stock = transformers.AutoModelForImageClassification.from_pretrained(artifact / "checkpoint")
    pixels = tasks.load(image_checkpoints["vit"]).inputs(image_splits.test.images)["pixel_values"]
    with torch.no_grad():
        expected = stock.eval()(pixels).logits.numpy()
    found = onnxruntime.InferenceSession(artifact / "model.onnx").run(
        ["logits"], {"pixel_values": pixels.numpy()}
    )
    assert np.corrcoef(found[0].ravel(), expected.ravel())[0, 1] > 0.99


def test_a_search_knows_the_widths_of_a_vit(image_data, image_checkpoints, store, tmp_path):
    words = ("prune=transformer", "prune.keep={ffn: 0.45, heads: 0.6, layers: 0.4}", "prune.round_to=8")
    config = load_config(overrides(image_data, image_checkpoints["vit"], *words))
    found = Workbench(runner(store)).canonical(config).prune.keep
    assert (found.ffn, found.heads, found.layers) == (0.5, 0.5, 0.5)  # of 32, 4 and 2


@pytest.mark.slow
def test_a_ragged_vit_ships_with_a_padded_checkpoint(image_data, image_checkpoints, store, tmp_path):
    uneven = tasks.load(image_checkpoints["vit"])
    with torch.no_grad():  # many channels of one layer hardly matter
        uneven.stack.layers()[0].ffn_out.weight[:, :25] *= 0.01
    (tmp_path / "uneven").mkdir()
    uneven.save(tmp_path / "uneven", uneven.facts)
    words = overrides(
        image_data,
        tmp_path / "uneven",
        *("prune=transformer", "prune.scope=global", "prune.keep.ffn=0.6", "prune.round_to=1"),
        "quantize=none",
    )
    report = pipeline.run(load_config(words), tmp_path / "run", runner(store))
    assert len(set(report.variants[-1].widths["ffn"])) == 2
    assert "pruned: stock transformers reloads the checkpoint" in {gate.name for gate in report.gates}
    described = json.loads((tmp_path / "run" / "artifact" / "checkpoint" / "config.json").read_text())
    assert tuple(described["ffn_widths"]) == report.variants[-1].widths["ffn"]
    assert described["intermediate_size"] == max(described["ffn_widths"])


@pytest.mark.slow
def test_a_baseline_is_trained_and_shipped(image_data, image_splits, store, tmp_path):
    words = overrides(
        image_data,
        tmp_path / "baseline",
        "train=supervised",
        "train.epochs=6",
        "train.batch_size=16",
        "train.augment=false",
        "model.builder=compress.models.image_nets:resnet",
        "+model.builder_kwargs={widths: [8, 12], blocks: 1, classes: 3}",
    )
    folder = train(load_config(words), runner(store))
    assert folder == tmp_path / "baseline"
    report = pipeline.run(load_config(words), tmp_path / "run", runner(store))
    assert report.variants[0].quality["accuracy"].value > 0.9
    assert report.variants[1].drop_from_dense["accuracy"].value < 0.05
    session = onnxruntime.InferenceSession(tmp_path / "run" / "artifact" / "model.onnx")
    with np.load(tmp_path / "run" / "artifact" / "check.npz") as stored:
        inputs = {name: stored[name] for name in stored.files if name.endswith("pixel_values")}
    assert inputs
    assert session.get_inputs()[0].shape[1:] == [1, 8, 8]


def test_training_again_replaces_the_folder_as_a_whole(image_data, store, tmp_path):
    words = overrides(
        image_data,
        tmp_path / "baseline",
        *("train=supervised", "train.epochs=1", "model.builder=compress.models.image_nets:resnet"),
        "+model.builder_kwargs={widths: [8], blocks: 1, classes: 3}",
    )
    train(load_config(words), runner(store))
    (tmp_path / "baseline" / "stale").write_text("x")
    train(load_config([*words, "train.seed=1"]), runner(store))
    assert not (tmp_path / "baseline" / "stale").exists()
    assert [path.name for path in tmp_path.glob(".baseline*")] == []


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("train=none", "of no baseline how to train it"),
        ("model.builder=null", "of no baseline how to train it"),
        ("model.source='hf:some/net'", "written to a folder"),
    ],
)
def test_what_cannot_be_trained(word, said, image_data, store, tmp_path):
    words = overrides(
        image_data,
        tmp_path,
        "train=supervised",
        "model.builder=compress.models.image_nets:resnet",
        word,
    )
    with pytest.raises(ConfigError, match=said):
        train(load_config(words), runner(store))


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


BAD = {
    "another size": (["data.resize.size=9"], ModelError, "another shape than the model's"),
    "a workload of another size": (
        ["benchmark.workloads=[1x9]"],
        ModelError,
        r"next: +benchmark.workloads=\[1x8",
    ),
    "labels out of range": (["data.classes=[top,middle]"], DataError, "labels without a class"),
    "no such file": (["data.test_set.images=nothing"], DataError, "not one file of images"),
    "an empty layer": (["prune=channels", "prune.keep=0.01"], ConfigError, "left without channels"),
    "an option of encoders": (["prune=language"], ConfigError, "does not work on this kind of model"),
    "no such folder": (["model.source=path:nothing"], SourceError, "no such file or folder"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_told_and_nothing_is_lost(
    case, earlier, image_data, image_checkpoints, store, tmp_path
):
    words, kind, said = BAD[case]
    before = contents(earlier)
    base = overrides(image_data, image_checkpoints["resnet"])
    with pytest.raises(kind, match=said):
        pipeline.run(load_config([*base, *words]), tmp_path / "run", runner(store))
    assert list(tmp_path.iterdir()) == []
    assert contents(earlier) == before
    again = runner(store, dry_run=True)
    pipeline.run(load_config(base), tmp_path / "again", again)
    assert again.stages == []  # that would run: every result is there and intact


@pytest.mark.parametrize("workload", ["1x9", "1x8+4"])
def test_a_workload_that_cannot_be_is_told_before_anything_is_exported(
    workload, image_data, image_checkpoints, store, tmp_path
):
    here = runner(store)
    words = overrides(image_data, image_checkpoints["resnet"], f"benchmark.workloads=[{workload}]")
    with pytest.raises((ModelError, ConfigError), match=r"found: .*" + workload.replace("+", r"\+")):
        pipeline.run(load_config(words), tmp_path / "run", here)
    assert [stage.name for stage in here.stages] == ["load"]


@pytest.mark.slow
def test_a_latency_is_asked_for(image_checkpoints, image_data, store, tmp_path):
    """A net this small is all overhead: whatever share is chosen, it was measured and lies in the report."""
    words = ("prune=channels", "prune.round_to=1", "prune.images=30", "benchmark.workloads=[1x8,4x8]")
    usual, stage_runner = overrides(image_data, image_checkpoints["resnet"], *words), runner(store)
    with pytest.raises(ConfigError, match="no share of the channels"):
        pipeline.run(load_config([*usual, "prune.latency_ms=1000000"]), tmp_path / "run", stage_runner)
    [table] = [stage for stage in stage_runner.stages if stage.name == "benchmark"]
    speed = load_speed(stage_runner.store.find(table.digest).path)
    goal = speed.latency_ms["dense"]["4x8"].p50 / speed.speedup["0.5000"]["4x8"].value
    report = pipeline.run(load_config([*usual, f"prune.latency_ms={goal}"]), tmp_path / "run", stage_runner)
    assert report.config["prune"]["latency_ms"] is None
    assert 0.25 <= report.config["prune"]["keep"] <= 1.0
    assert sum(stage.name == "prune" and stage.reused for stage in stage_runner.stages) >= 4


@pytest.mark.parametrize(
    ("net", "option", "advice"),
    [
        ("resnet", "prune=transformer", "prune=channels"),
        ("vit", "prune=channels", "prune=transformer"),
        ("vit", "quantize=int8_qat", "quantize=int8_dynamic"),
    ],
)
def test_an_option_for_another_kind_of_net_is_refused_before_anything_is_computed(
    net, option, advice, image_data, image_checkpoints, store, tmp_path
):
    config = load_config(overrides(image_data, image_checkpoints[net], option))
    stage_runner = runner(store)
    with pytest.raises(
        ModelError, match=rf"{option} does not work on this kind of model(.|\n)*next: +{advice}"
    ):
        pipeline.run(config, tmp_path / "run", stage_runner)
    assert [stage.name for stage in stage_runner.stages] == ["load"]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_quality_is_of_what_the_target_computes_where_that_is_asked_for(
    image_checkpoints, image_data, store, tmp_path
):
    words = overrides(image_data, image_checkpoints["resnet"], "evaluate.on_target=true", "quantize=none")
    report = pipeline.run(load_config(words), tmp_path / "run", runner(store))
    assert report.environment["quality"] == "of what the target computes"
    assert all(variant.quality["accuracy"].n == 60 for variant in report.variants)
