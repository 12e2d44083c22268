"""Faults that a graph of a language model may have beyond the first tokens are seen by the gate."""

import shutil

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from compress.config.export import GenaiExport, TorchExport
from compress.config.model import CausalLMModel
from compress.errors import GateError
from compress.export import export
from compress.export.parity import check_parity, parity
from compress.stages.result import read_result
from compress.tasks import import_model
from compress.tasks.language_modeling.model import CausalLM

WINDOW = 160  # tokens


@pytest.fixture(scope="module")
def made(once, language_texts, splits_folder, write_language):
    """A model whose attention sees 160 tokens, and its graphs."""

    def build(folder):
        write_language(folder / "published", "mistral", language_texts, sliding_window=WINDOW)
        for name in ("checkpoint", "fused", "plain"):
            (folder / name).mkdir()
        import_model(CausalLMModel(source=f"path:{folder / 'published'}"), folder / "checkpoint")
        export(GenaiExport(), folder / "checkpoint", splits_folder, folder / "fused")

    return once("mistral-160", build)


def windows(size):
    def change(model):
        for node in model.graph.node:
            for attribute in node.attribute:
                if attribute.name == "local_window_size":
                    attribute.i = size

    return change


def constants(size):
    """The window of a plain graph, which masks compare with."""

    def change(model):
        tensors = [each.t for node in model.graph.node for each in node.attribute if each.name == "value"]
        for tensor in (*model.graph.initializer, *tensors):
            found = numpy_helper.to_array(tensor)
            if found.size == 1 and found.dtype.kind == "i" and abs(int(found.ravel()[0])) == WINDOW:
                tensor.CopyFrom(
                    numpy_helper.from_array(np.sign(found) * np.array(size, found.dtype), tensor.name)
                )

    return change


def no_rotation_behind(position):
    def change(model):
        for tensor in model.graph.initializer:
            if tensor.name in ("cos_cache", "sin_cache"):
                found = numpy_helper.to_array(tensor).copy()
                found[position:] = 0
                tensor.CopyFrom(numpy_helper.from_array(found, tensor.name))

    return change


def no_rotation_between(model):
    for tensor in model.graph.initializer:
        if tensor.name in ("cos_cache", "sin_cache"):
            found = numpy_helper.to_array(tensor).copy()
            found[200:400] = found[0]
            tensor.CopyFrom(numpy_helper.from_array(found, tensor.name))


def batch_of_one(model):
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1


def no_mask(model):
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name == "attention_mask":
                node.input[place] = "all_ones"
    ones = onnx.helper.make_tensor("value", onnx.TensorProto.INT64, [1], [1])
    model.graph.node.insert(0, onnx.helper.make_node("ConstantOfShape", ["size"], ["all_ones"], value=ones))
    model.graph.node.insert(0, onnx.helper.make_node("Shape", ["attention_mask"], ["size"]))


def two_inputs_swapped(model):
    first, second = model.graph.input[2], model.graph.input[3]
    kept = onnx.ValueInfoProto()
    kept.CopyFrom(first)
    first.CopyFrom(second)
    second.CopyFrom(kept)


def numbers_of(made, kind, damage, texts, folder):
    shutil.copytree(made / kind, folder)
    model = onnx.load(folder / "model.onnx")
    damage(model)
    (folder / "model.onnx_data").unlink()
    onnx.save(model, folder / "model.onnx")
    return parity(CausalLM.open(made / "checkpoint"), folder / "model.onnx", texts, "none", cached=True)


def test_the_gate_says_which_limits_it_crossed(made):
    numbers = read_result(made / "fused").gates[0].numbers
    assert {name: each for name, each in numbers.items() if name.startswith("crosses")} == {
        "crosses_160": 1,
        "crosses_256": 1,
    }
    assert numbers["max_abs_diff"] < 1e-4


@pytest.mark.parametrize("damage", [windows(159), windows(-1), no_rotation_behind(130), batch_of_one])
def test_a_fault_of_a_fused_graph_is_seen(damage, made, language_texts, tmp_path):
    with pytest.raises(GateError, match=r"does not compute|cannot run"):
        check_parity(
            numbers_of(made, "fused", damage, language_texts, tmp_path / "graph"),
            GenaiExport(),
            tmp_path,
            "none",
        )


def test_a_fault_between_two_limits_is_seen(once, language_texts, splits_folder, write_language, tmp_path):
    """Behind the text, and far from the last of 1,024 positions."""

    def build(folder):
        write_language(folder / "published", "llama", language_texts, max_position_embeddings=1024)
        for name in ("checkpoint", "fused"):
            (folder / name).mkdir()
        import_model(CausalLMModel(source=f"path:{folder / 'published'}"), folder / "checkpoint")
        export(GenaiExport(), folder / "checkpoint", splits_folder, folder / "fused")

    longer = once("llama-1024", build)
    damaged = numbers_of(longer, "fused", no_rotation_between, language_texts, tmp_path / "graph")
    with pytest.raises(GateError, match="does not compute"):
        check_parity(damaged, GenaiExport(), tmp_path, "none")


def test_inputs_of_another_order_are_seen(made, language_texts, tmp_path):
    with pytest.raises(GateError, match="other inputs or outputs"):
        numbers_of(made, "fused", two_inputs_swapped, language_texts, tmp_path / "graph")


@pytest.mark.slow
def test_faults_of_a_plain_graph_are_seen(made, splits_folder, language_texts, tmp_path):
    shutil.copytree(made / "checkpoint", tmp_path / "checkpoint")
    (tmp_path / "plain").mkdir()
    config = TorchExport(fuse=False)
    export(config, tmp_path / "checkpoint", splits_folder, tmp_path / "plain")
    for number, damage in enumerate((constants(159), constants(100000), batch_of_one, no_mask)):
        with pytest.raises(GateError, match=r"does not compute|cannot run"):
            check_parity(
                numbers_of(tmp_path, "plain", damage, language_texts, tmp_path / str(number)),
                config,
                tmp_path,
                "none",
            )
