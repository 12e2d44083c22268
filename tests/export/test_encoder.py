"""The exported file: right, checked, reproducible and free of traces of this machine."""

import hashlib
import shutil
import socket
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from compress import tasks
from compress.config.export import GenaiExport, TorchExport
from compress.config.prune import Keep, TransformerPrune
from compress.errors import CompressError, GateError
from compress.export import export, plain, torch_onnx
from compress.export.parity import check_parity, parity
from compress.stages.result import read_result
from tests.prune.cuts import cut_channels, cut_heads, drop, texts_of

ARCHITECTURES = ("bert", "roberta", "distilbert", "mpnet")


def run(path, encoder, inputs):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [node.name for node in session.get_outputs()] == ["sentence_embedding"]
    assert sorted(node.name for node in session.get_inputs()) == sorted(encoder.input_names)
    (found,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    with torch.no_grad():
        return found, encoder.module(**inputs)["sentence_embedding"].numpy()


def opset(path):
    return next(entry.version for entry in onnx.load(path).opset_import if entry.domain in ("", "ai.onnx"))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_batch_and_length_vary_and_padding_does_not_count(name, checkpoints, splits, graphs):
    graph = graphs(name, False)
    encoder = tasks.load(checkpoints[name])
    for texts in (splits.test.texts[:1], splits.test.texts[:9], ["river"], ["the river " * 100]):
        np.testing.assert_allclose(*run(graph / "model.onnx", encoder, encoder.tokenize(texts)), atol=1e-5)
    numbers = read_result(graph).gates[0].numbers
    assert numbers["examples"] == 64 + 2  # and a text as long as the model takes beside a short one
    assert numbers["max_abs_diff"] < 1e-5
    assert sorted(path.name for path in graph.iterdir()) == ["model.onnx", "stage.json"]


@pytest.mark.parametrize(("opset_", "fuse", "written"), [(18, False, 18), (20, True, 20), (23, True, 23)])
def test_opsets(opset_, fuse, written, checkpoints, splits_folder, tmp_path):
    export(TorchExport(fuse=fuse, opset=opset_), checkpoints["bert"], splits_folder, tmp_path)
    assert opset(tmp_path / "model.onnx") == written
    onnx.checker.check_model(tmp_path / "model.onnx")


@pytest.mark.slow
def test_exporting_twice_gives_the_same_bytes_without_traces(checkpoints, splits_folder, tmp_path):
    found = []
    for name in ("first", "second"):
        out = tmp_path / name
        out.mkdir()
        export(TorchExport(), checkpoints["bert"], splits_folder, out)
        found.append((out / "model.onnx").read_bytes())
    assert hashlib.sha256(found[0]).digest() == hashlib.sha256(found[1]).digest()
    here = (Path.cwd(), Path.home(), tmp_path, checkpoints["bert"], Path(torch.__file__).parent)
    for trace in (*map(str, here), "site-packages", socket.gethostname()):
        assert trace.encode() not in found[0], trace


def test_the_baseline_is_not_rewritten():
    assert plain(TorchExport(max_abs_diff=1e-3, opset=21)) == TorchExport(
        max_abs_diff=1e-3, fuse=False, opset=21
    )
    same_gate = TorchExport(max_abs_diff=1e-3, min_cosine=0.9, fuse=False)
    assert plain(GenaiExport(max_abs_diff=1e-3, min_cosine=0.9)) == same_gate


@pytest.mark.parametrize("fuse", [True, False])
def test_a_pruned_encoder(fuse, checkpoints, splits, splits_folder, tmp_path):
    encoder = tasks.load(checkpoints["bert"])
    chosen = TransformerPrune(keep=Keep(heads=0.5, ffn=0.5), round_to=8)
    data = texts_of(encoder, splits.calibration.texts)
    drop(data, 0.5)
    cut_heads(data, chosen)
    cut_channels(data, chosen)
    encoder.save(tmp_path / "small", encoder.facts)
    export(TorchExport(fuse=fuse), tmp_path / "small", splits_folder, tmp_path)
    found, expected = run(tmp_path / "model.onnx", encoder, encoder.tokenize(splits.test.texts))
    np.testing.assert_allclose(found, expected, atol=1e-5)


# ---------------------------------------------------------------- the gate


def shift_a_weight(path):
    model = onnx.load(path)
    bias = next(t for t in model.graph.initializer if t.name.endswith("output.LayerNorm.bias"))
    changed = onnx.numpy_helper.to_array(bias) + np.linspace(0, 0.5, *bias.dims, dtype=np.float32)
    bias.CopyFrom(onnx.numpy_helper.from_array(changed, bias.name))
    onnx.save(model, path)


@pytest.fixture
def instead(monkeypatch, graphs):
    """`instead(change)`: the exporter writes the graph of the BERT, and `change` is done to its file."""

    exported = {fuse: graphs("bert", fuse) / "model.onnx" for fuse in (True, False)}

    def write(change):
        def copied(traced, path, config):
            shutil.copyfile(exported[config.fuse], path)
            change(path)

        monkeypatch.setattr(torch_onnx, "write", copied)

    return write


@pytest.mark.parametrize("fuse", [True, False])
def test_a_graph_that_computes_something_else(fuse, checkpoints, splits_folder, tmp_path, instead):
    instead(shift_a_weight)
    with pytest.raises(GateError, match=r"does not compute.*\n  found:   max abs .*\n  allowed: .*\n  next"):
        export(TorchExport(fuse=fuse), checkpoints["bert"], splits_folder, tmp_path)


@pytest.mark.parametrize("limits", [{"max_abs_diff": 1e-12}, {"min_cosine": 1.0}])
def test_each_limit_counts(limits, checkpoints, splits_folder, tmp_path, monkeypatch, instead):
    instead(lambda path: None)
    numbers = {"max_abs_diff": 1e-9, "largest_output": 1.0, "min_cosine": 0.999999, "texts": 1}
    monkeypatch.setattr(torch_onnx, "parity", lambda *_: numbers)
    export(TorchExport(), checkpoints["bert"], splits_folder, tmp_path)
    with pytest.raises(GateError):
        export(TorchExport(**limits), checkpoints["bert"], splits_folder, tmp_path)


def test_the_limit_grows_with_the_largest_output(checkpoints, splits_folder, tmp_path, monkeypatch, instead):
    """Rounding does: logits of 30 may differ by 30 times as much as the numbers of a vector of length 1."""
    instead(lambda path: None)
    numbers = {"max_abs_diff": 2e-4, "largest_output": 30.0, "min_cosine": 1.0}
    monkeypatch.setattr(torch_onnx, "parity", lambda *_: numbers)
    export(TorchExport(), checkpoints["bert"], splits_folder, tmp_path)
    numbers["largest_output"] = 0.5
    with pytest.raises(GateError, match=r"1\.0e-04"):
        export(TorchExport(), checkpoints["bert"], splits_folder, tmp_path)


def test_parity_is_of_the_worst_text(checkpoints, splits, graphs, tmp_path):
    path = tmp_path / "model.onnx"
    shutil.copyfile(graphs("bert", False) / "model.onnx", path)
    shift_a_weight(path)
    encoder = tasks.load(checkpoints["bert"])
    texts = splits.calibration.texts[:20]
    told = parity(encoder, path, texts, "none")
    longest, _ = encoder.at_limits(texts)
    pairs = [run(path, encoder, each) for each in (encoder.tokenize(texts), *longest)]
    found, expected = (np.concatenate(each) for each in zip(*pairs, strict=True))
    assert told["max_abs_diff"] == pytest.approx(np.abs(found - expected).max(), abs=1e-5)
    assert told["min_cosine"] == pytest.approx((found * expected).sum(1).min(), abs=1e-5)
    assert told["min_cosine"] < 0.999


def test_positions_that_no_calibration_text_has_are_tried(checkpoints, splits, graphs, tmp_path):
    encoder, texts = tasks.load(checkpoints["bert"]), splits.calibration.texts[:10]
    last = encoder.processor.max_length
    ours = max(int(each["attention_mask"].sum(1).max()) for each in encoder.batches(texts, 4))
    model = onnx.load(graphs("bert", False) / "model.onnx")
    told = parity(encoder, graphs("bert", False) / "model.onnx", texts, "none")
    assert ours < last
    assert told[f"crosses_{last}"] == 1
    table = encoder.module.backbone.embeddings.position_embeddings.weight.detach().numpy()
    [stored] = [t for t in model.graph.initializer if np.array_equal(onnx.numpy_helper.to_array(t), table)]
    stored.CopyFrom(
        onnx.numpy_helper.from_array(table * (np.arange(len(table)) < ours)[:, None], stored.name)
    )
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(GateError, match="does not compute"):
        check_parity(parity(encoder, tmp_path / "model.onnx", texts, "none"), TorchExport(), tmp_path, "none")


def test_embeddings_that_are_not_finite_do_not_pass(checkpoints, splits_folder, tmp_path, instead):
    def poison(path):
        model = onnx.load(path)
        bias = next(t for t in model.graph.initializer if t.name.endswith("output.LayerNorm.bias"))
        bias.CopyFrom(onnx.numpy_helper.from_array(np.full(bias.dims, np.nan, np.float32), bias.name))
        onnx.save(model, path)

    instead(poison)
    with pytest.raises(GateError):
        export(TorchExport(), checkpoints["bert"], splits_folder, tmp_path)


def test_a_file_onnxruntime_cannot_load(checkpoints, splits, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(GateError, match=r"cannot run the exported graph\n  found: .*\n  next: +what now"):
        parity(tasks.load(checkpoints["bert"]), tmp_path / "model.onnx", splits.test.texts, "what now")


def test_an_operator_that_cannot_be_exported(checkpoints, splits_folder, tmp_path, monkeypatch):
    forward = torch.nn.LayerNorm.forward
    odd = lambda self, x: forward(self, x) + torch.linalg.eigvals(x.mT @ x).real[:, :1, None]  # noqa: E731
    monkeypatch.setattr(torch.nn.LayerNorm, "forward", odd)
    with pytest.raises(CompressError, match=r"cannot be exported to ONNX\n  found: .*eig.*\n  next"):
        export(TorchExport(), checkpoints["bert"], splits_folder, tmp_path)
