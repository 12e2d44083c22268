"""Which layers stay in float: the arithmetic by hand, and the whole on a model with one bad layer."""

import math
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from compress.config.evaluate import SentenceSimilarity
from compress.config.quantize import Float16Blocks, Int8Dynamic, Int8Static
from compress.data import load_splits
from compress.errors import ConfigError
from compress.quantize import also_measured, goals, quantize, sensitivity
from compress.quantize.layers import Layer, quantized_layers, restored
from compress.quantize.sensitivity import affordable, by_price, fewest, leave_out, mean_cosine, rank, run
from compress.schema.quantization import Coverage, Sensitivity
from compress.stages.result import read_result
from compress.tasks import open_processor
from compress.tasks.sentence_embedding.embedder import embed


def layer(name, macs, weights):
    return Layer(node=name, output=name, macs=macs, weights=weights)


def test_the_most_damage_for_its_price_comes_first():
    layers = [layer("product", 100, 100), layer("small", 10, 10), layer("table", 0, 890), layer("good", 1, 1)]
    damages = {"product": 0.8, "small": 0.2, "table": 0.1, "good": -0.1}
    # prices: 100/111 + 100/1001 = 1.0, 0.1, 0.889; damage for it: 0.8, 2.0, 0.11
    assert [each.node for each in by_price(layers, damages)] == ["small", "product", "table"]


def test_a_layer_that_does_not_fit_is_passed_over():
    layers = [layer("a", 6, 1), layer("b", 5, 1), layer("c", 4, 1), layer("table", 0, 9)]
    assert [each.node for each in affordable(layers, 10)] == ["a", "c", "table"]
    assert [each.node for each in affordable(layers, -1)] == []


@given(st.integers(0, 40), st.integers(0, 60))
def test_the_fewest_that_are_enough(most, needed):
    asked = []
    found = fewest(most, lambda count: asked.append(count) or count >= needed)
    assert found == (needed if needed <= most else None)
    assert len(asked) <= 2 + int(np.ceil(np.log2(max(most, 1))))


def test_cosine_by_hand():
    found = [np.array([[1.0, 0.0]]), np.array([[1.0, 1.0]]), np.array([[0.0, 0.0]])]
    expected = [np.array([[2.0, 0.0]]), np.array([[1.0, 0.0]]), np.array([[1.0, 0.0]])]
    found, expected = ([{"y": array} for array in arrays] for arrays in (found, expected))
    assert mean_cosine(found, expected) == pytest.approx((1 + 0.5**0.5 + 0) / 3)


def test_of_single_numbers_the_cosine_is_over_all_examples():
    """The logit of a reranker: alone its cosine is 1 or -1."""
    found, expected = ([{"logits": np.array([[x]])} for x in values] for values in ([3.0, 0.0], [3.0, 4.0]))
    assert mean_cosine(found, expected) == pytest.approx(9 / (3 * 5))


@given(st.sets(st.sampled_from("abcdef")), st.floats(0, 1))
def test_the_cheapest_set_that_keeps_a_metric(harmful, floor):
    """Each layer of some costs 0.1 while it is rounded; the ends that do not help go back."""
    layers = [layer(name, 1, 1) for name in "abcdef"]
    rounded = sensitivity.Rounded(
        layers=layers,
        total_macs=6,
        bytes_added=3,
        without=lambda names: frozenset(names),
        damages=lambda: {name: 0.1 if name in harmful else -0.01 for name in "abcdef"},
    )
    goal = sensitivity.Goal(floor=-floor, score=lambda left: -0.1 * len(harmful - left), metric="accuracy")
    graph, found = leave_out(rounded, goal, 0.0, 10)
    needed = max(0, math.ceil((0.1 * len(harmful) - floor) / 0.1 - 1e-9))
    assert found.met
    assert len(graph) == needed
    assert graph <= harmful
    assert (found.metric, found.max_drop) == ("accuracy", floor)
    assert found.bytes_added == 3 * needed


@pytest.fixture
def pair(graphs, quantized, checkpoints, splits):
    def make(config, fuse=True):
        folder = quantized(config, "bert", fuse)
        feeds = list(open_processor(checkpoints["bert"]).batches(splits.select.texts[:8], 1))
        reference = onnx.load(graphs("bert", fuse) / "model.onnx")
        return reference, onnx.load(folder / "model.onnx"), feeds

    return make


def outputs(model, feeds):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return [dict(zip(names, session.run(None, feed), strict=True)) for feed in feeds]


@pytest.mark.parametrize("config", [Int8Dynamic(), Int8Static(examples=9)])
@pytest.mark.parametrize("fuse", [True, False])
def test_everything_restored_is_the_float_model(config, fuse, pair):
    reference, int8, feeds = pair(config, fuse)
    names = [each.output for each in quantized_layers(reference, int8)]
    again = restored(int8, reference, names)
    for got, wanted in zip(
        outputs(again, feeds)[0].values(), outputs(reference, feeds)[0].values(), strict=True
    ):
        assert np.allclose(got, wanted, atol=1e-6)
    assert not quantized_layers(reference, again)
    assert restored(int8, reference, ()).graph.node == int8.graph.node


@pytest.mark.parametrize("config", [Int8Dynamic(), Int8Static(examples=9, embeddings=False)])
def test_the_damage_alone_is_that_of_a_graph_with_this_layer_in_integers(config, pair):
    reference, int8, feeds = pair(config)
    layers = quantized_layers(reference, int8)
    damages = rank(reference, int8, layers, feeds)
    expected = outputs(reference, feeds)
    for chosen in (layers[3], layers[-1]):
        others = [each.output for each in layers if each is not chosen]
        alone = outputs(restored(int8, reference, others), feeds)
        assert damages[chosen.output] == pytest.approx(1 - mean_cosine(alone, expected), abs=1e-6)
        assert damages[chosen.output] > 0


def spoil(int8, name):
    """Coarse weights for one layer: 3 bits instead of 8."""
    node = next(n for n in int8.graph.node if n.op_type == "MatMulInteger" and name in n.name)
    (weight,) = (t for t in int8.graph.initializer if t.name == node.input[1])
    coarse = np.clip(np.round(numpy_helper.to_array(weight) / 42.0) * 42, -128, 127).astype(np.int8)
    weight.CopyFrom(numpy_helper.from_array(coarse, weight.name))


def left_out(quantized, reference, feeds, min_cosine, min_coverage):
    rounded = sensitivity.int8(quantized, reference, feeds, lambda model: model)
    return leave_out(rounded, goals.near(reference, feeds, min_cosine), min_coverage, len(feeds))


def test_the_worst_output_counts():
    """Of several outputs, the first of which is as it should be."""
    good, bad = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    expected = [{"a": good, "b": good}, {"a": good, "b": bad}]
    assert mean_cosine(expected, expected) == 1
    assert mean_cosine([{"a": good, "b": good}, {"a": good, "b": good}], expected) == 0.5
    assert mean_cosine([{"a": bad, "b": good}, {"a": bad, "b": bad}], expected) == 0


def test_one_bad_layer_is_found_and_alone_left_out(pair):
    reference, int8, feeds = pair(Int8Dynamic())
    good = mean_cosine(run(int8, feeds), run(reference, feeds))
    spoil(int8, "layer.1/attention/self/key")
    graph, found = left_out(int8, reference, feeds, good - 1e-4, 0.9)
    assert [each.node for each in found.layers if each.left_out] == [found.layers[0].node]
    assert "layer.1/attention/self/key" in found.layers[0].node
    assert found.met
    assert found.cosine_all < good - 1e-4 <= found.cosine
    assert found.cosine == mean_cosine(run(graph, feeds), run(reference, feeds))
    assert (found.bytes_added, found.macs_left_out) == (3 * 32 * 32, 1024 / 16384)


def test_what_coverage_forbids_stays_integer_and_the_best_is_kept(pair):
    reference, int8, feeds = pair(Int8Dynamic())
    _, found = left_out(int8, reference, feeds, 1.0, 0.9)
    assert not found.met
    assert found.cosine_all < found.cosine < 1
    assert 0 < found.macs_left_out <= 0.1
    gained = dict(found.tried)[max(dict(found.tried))] - found.cosine_all
    assert found.cosine - found.cosine_all >= 0.75 * gained


def test_near_enough_leaves_the_graph_alone(pair):
    reference, int8, feeds = pair(Int8Dynamic())
    graph, found = left_out(int8, reference, feeds, 0.9, 0.95)
    assert graph is int8
    assert (found.met, found.layers, found.bytes_added, len(found.tried)) == (True, (), 0, 1)


def weight_bytes(folder):
    tensors = onnx.load(folder / "model.onnx").graph.initializer
    return sum(numpy_helper.to_array(tensor).nbytes for tensor in tensors)


@pytest.mark.parametrize("config", [Int8Dynamic, Int8Static])
def test_the_stage_leaves_out_tells_and_stays_above_its_floor(config, quantized):
    more = {"examples": 9} if config is Int8Static else {}
    folder = quantized(config(min_cosine=0.99999, min_coverage=0.75, **more))
    found, coverage = (
        read_result(folder).fact("sensitivity", Sensitivity),
        read_result(folder).fact("coverage", Coverage),
    )
    options = also_measured(config(min_cosine=0.99999, **more), folder)
    assert [name for name, _ in options] == ["int8_all"]
    assert 0.75 <= coverage.coverage_macs == pytest.approx(1 - found.macs_left_out)
    products = {each.node for each in found.layers if each.left_out and each.macs}
    told = {each.node for each in coverage.skipped if each.reason == "left in float for quality"}
    assert products == told
    plain = quantized(options[0][1], out="plain")
    assert also_measured(config(**more), plain) == []
    assert weight_bytes(folder) - weight_bytes(plain) == pytest.approx(found.bytes_added, rel=0.1)


def test_a_model_that_is_bad_whole_is_no_error(graphs, checkpoints, splits_folder, tmp_path):
    quantize(
        Int8Dynamic(min_cosine=1.0, min_coverage=1.0),
        [],
        graphs(),
        checkpoints["bert"],
        splits_folder,
        tmp_path,
    )
    found = read_result(tmp_path).fact("sensitivity", Sensitivity)
    assert not found.met
    assert not [each for each in found.layers if each.macs and each.left_out]


@pytest.mark.parametrize(
    "config",
    [
        Int8Dynamic(max_drop=2e-4, min_coverage=0.5),
        pytest.param(Int8Static(examples=9, max_drop=2e-4, min_coverage=0.5), marks=pytest.mark.slow),
        Float16Blocks(max_drop=2e-3, min_coverage=0.5),
    ],
)
def test_the_metric_of_the_task_is_kept(config, graphs, checkpoints, splits_folder, tmp_path):
    """That of sentence encoders on select, where no pairs are, is the cosine; onnxruntime says what it is."""
    judged = SentenceSimilarity(primary="cosine")
    small, rounded = tmp_path / "small", tmp_path / "rounded"
    for folder, option in ((small, config), (rounded, replace(config, max_drop=None))):
        folder.mkdir()
        more = {"evaluate": judged} if option is config else {}
        quantize(option, [], graphs(), checkpoints["bert"], splits_folder, folder, **more)
    found = read_result(small).fact("sensitivity", Sensitivity)
    assert found.metric == "cosine"
    assert found.met
    assert found.drop <= config.max_drop < found.drop_all
    assert any(each.left_out for each in found.layers)
    select = load_splits(splits_folder).select.texts
    processor = open_processor(checkpoints["bert"])
    reference = embed(graphs() / "model.onnx", processor, select)
    for folder, drop in ((small, found.drop), (rounded, found.drop_all)):
        embeddings = embed(folder / "model.onnx", processor, select)
        assert 1 - (embeddings * reference).sum(1).mean() == pytest.approx(drop, abs=5e-4)
    [(name, option)] = also_measured(config, small)
    assert (name, option) == (f"{config.variant}_all", replace(config, max_drop=None))


def test_two_goals_are_one_too_many():
    with pytest.raises(ConfigError, match="one goal"):
        Int8Dynamic(max_drop=0.01, min_cosine=0.99)
