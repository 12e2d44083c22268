"""`compress bench`: inputs made up from what graphs declare, and the command on files we did not make."""

import json
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.benchmark.timing import timing_job
from compress.cli import bench, bench_inputs
from compress.cli.console import console
from compress.config.benchmark import BenchmarkConfig
from compress.config.target import LocalTarget
from compress.errors import BenchmarkError, ConfigError
from compress.graph.untrusted import Graph, Input, inspect
from compress.targets import open_target

FACTS = ("vocabulary", "channels")


def graph(**inputs):
    """name=(dtype, shape), or with its FACTS behind."""
    made = [
        Input(
            name=name, dtype=what[0], shape=what[1], **dict(zip(FACTS, (*what[2:], None, None), strict=False))
        )
        for name, what in inputs.items()
    ]
    return Graph(inputs=tuple(made), outputs=("y",), opset=18, size_bytes=1)


def workloads(asked, dims=None, given=None, **inputs):
    return bench_inputs.make_workloads(graph(**inputs).inputs, asked, dims or {}, given or {})


def shapes(feeds):
    return {name: array.shape for name, array in feeds.items()}


TEXT = {"input_ids": ("int64", ("batch", "seq"), 100), "attention_mask": ("int64", ("batch", "seq"))}


def test_text_takes_batch_and_tokens():
    made = workloads(["1x60", "3x5"], **TEXT, kinds=("int32", ("", "")))
    assert list(made) == ["1x60", "3x5"]
    assert set(shapes(made["3x5"]).values()) == {(3, 5)}
    ids, mask, kinds = made["1x60"].values()
    assert (ids.dtype, mask.dtype, kinds.dtype) == (np.int64, np.int64, np.int32)
    assert 0 <= ids.min() < 15
    assert 85 < ids.max() < 100
    assert (mask == 1).all()
    assert set(np.unique(kinds)) <= {0, 1}


LM = {
    "input_ids": ("int64", ("b", "s"), 100),
    "attention_mask": ("int64", ("b", "total")),
    "position_ids": ("int64", ("b", "s")),
    "past_key_values.0.key": ("float32", ("b", 3, "past", 64)),
}


def test_a_language_model_takes_what_is_cached():
    made = workloads(["1x16", "2x1+30"], **LM)
    assert list(made) == ["1x16", "2x1+30"]
    assert list(shapes(made["1x16"]).values()) == [(1, 16), (1, 16), (1, 16), (1, 3, 0, 64)]
    assert list(shapes(made["2x1+30"]).values()) == [(2, 1), (2, 31), (2, 1), (2, 3, 30, 64)]
    assert (made["2x1+30"]["attention_mask"] == 1).all()
    assert list(workloads(["2x1+30"], **TEXT)) == ["2x1"]  # which remembers nothing


def test_an_image_takes_the_batch_alone():
    made = workloads(["1x128", "8x128", "8x1"], pixels=("float32", ("n", 3, 32, 32)))
    assert {name: shapes(feeds) for name, feeds in made.items()} == {
        "1": {"pixels": (1, 3, 32, 32)},
        "8": {"pixels": (8, 3, 32, 32)},
    }
    values = made["8"]["pixels"]
    assert values.dtype == np.float32
    assert abs(values.mean()) < 0.05
    assert abs(values.std() - 1) < 0.05


def test_an_image_of_any_size_has_the_pixels_of_the_workload():
    axes = ("batch", "channels", "height", "width")
    made = workloads(["1x32", "2x64"], pixels=("float32", axes, None, 3))
    assert {name: shapes(feeds)["pixels"] for name, feeds in made.items()} == {
        "1x32": (1, 3, 32, 32),
        "2x64": (2, 3, 64, 64),
    }
    [made] = workloads(["2x64"], pixels=("float32", ("n", "h", "w", 3))).values()
    assert made["pixels"].shape == (2, 64, 64, 3)
    [made] = workloads(["2x64"], dims={"height": 16}, pixels=("float32", axes, None, 3)).values()
    assert made["pixels"].shape == (2, 3, 16, 64)


def test_a_workload_is_named_by_what_is_fed():
    made = workloads(["1x16", "8x16"], ids=("int64", (2, 64), 10))
    assert {name: shapes(feeds) for name, feeds in made.items()} == {"2x64": {"ids": (2, 64)}}


def test_named_dimensions_are_the_same_everywhere_and_the_users_word_counts():
    inputs = {
        **TEXT,
        "past": ("float16", ("batch", 4, "past", 8)),
        "states": ("float32", ("", "seq", 6)),
        "flags": ("bool", ("batch", "other")),
    }
    [made] = workloads(["2x7"], **inputs).values()
    assert shapes(made) == {
        "input_ids": (2, 7),
        "attention_mask": (2, 7),
        "past": (2, 4, 1, 8),
        "states": (2, 7, 6),
        "flags": (2, 1),
    }
    assert made["flags"].all()
    [made] = workloads(["2x7"], dims={"past": 0, "seq": 3}, **inputs).values()
    assert made["past"].shape == (2, 4, 0, 8)
    assert made["input_ids"].shape == (2, 3)


def test_the_same_name_gets_the_same_values():
    [one], [two] = (workloads(["2x7"], **TEXT, **more).values() for more in ({}, {"x": ("float32", (1,))}))
    np.testing.assert_array_equal(one["input_ids"], two["input_ids"])


def test_an_array_of_the_users(tmp_path):
    np.save(tmp_path / "ids.npy", np.full((3, 9), 7))
    given = bench_inputs.arrays_of([f"input_ids={tmp_path / 'ids.npy'}"])
    made = workloads(["1x9"], given=given, input_ids=("int64", ("b", "s"), 100))
    assert list(made) == ["3x9"]
    assert (made["3x9"]["input_ids"] == 7).all()


@pytest.mark.parametrize(
    "inputs", [{}, {"x": ("float32", ())}, {"x": ("float32", (-1, 2))}, {"x": ("float32", (2**40, 2))}]
)
def test_inputs_that_cannot_be_made(inputs):
    with pytest.raises(BenchmarkError, match=r"x cannot be made|no input with a batch"):
        workloads(["1x8"], **inputs)


def test_inputs_of_several_models_are_joined():
    graphs = {
        "a": graph(ids=("int64", ("batch", "seq"), 100), mask=("int64", ("batch", "seq"))),
        "b": graph(ids=("int64", (1, "seq"), 80), other=("float32", ("batch", 4))),
    }
    joined = bench_inputs.common_inputs(graphs)
    assert list(joined) == ["ids", "mask", "other"]
    assert (joined["ids"].shape, joined["ids"].vocabulary) == ((1, "seq"), 80)


@pytest.mark.parametrize("other", [("int32", ("b", "s")), ("int64", ("b",)), ("int64", (2, 8))])
def test_one_name_for_different_inputs(other):
    graphs = {"a.onnx": graph(ids=("int64", (2, 16))), "b.onnx": graph(ids=other)}
    with pytest.raises(BenchmarkError, match=r"input ids is not the same in a\.onnx and b\.onnx"):
        bench_inputs.common_inputs(graphs)


def test_names_of_models(tmp_path):
    (tmp_path / "artifact").mkdir()
    for name in ("a.onnx", "artifact/model.onnx", "artifact/a.onnx"):
        (tmp_path / name).write_bytes(b"")
    a, folder, other = (str(tmp_path / name) for name in ("a.onnx", "artifact", "artifact/a.onnx"))
    found = bench_inputs.find_models([a, folder])
    assert {name: str(path) for name, path in found.items()} == {
        "a.onnx": a,
        "artifact": f"{folder}/model.onnx",
    }
    assert list(bench_inputs.find_models([a, other])) == [f"{tmp_path.name}/a.onnx", "artifact/a.onnx"]
    assert list(bench_inputs.find_models([a, a])) == ["a.onnx", "a.onnx (2)"]
    assert bench_inputs.find_models([str(tmp_path)]) == {tmp_path.name: Path(a)}  # the only graph there
    (tmp_path / "empty").mkdir()
    with pytest.raises(BenchmarkError, match="no such ONNX file"):
        bench_inputs.find_models([str(tmp_path / "empty")])


# ---- graphs in files ------------------------------------------------------------------------------


def write(path, nodes, inputs, tensors, domain=()):
    opsets = [helper.make_opsetid("", 18), *(helper.make_opsetid(each, 1) for each in domain)]
    values = [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    arrays = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
    made = helper.make_graph(nodes, "g", values, [output], arrays)
    onnx.save(helper.make_model(made, opset_imports=opsets, ir_version=10), path)
    return path


def embedder(path, rows=20, seed=0):
    """y = table[ids], the ids cast on their way; `positions` index a table of 2 rows that is quantized."""
    table = np.random.default_rng(seed).normal(size=(rows, 4)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["ids"], ["ids32"], to=TensorProto.INT32),
        helper.make_node("Gather", ["table", "ids32"], ["rows"]),
        helper.make_node("DequantizeLinear", ["places_q", "scale"], ["places"]),
        helper.make_node("Gather", ["places", "positions"], ["placed"]),
        helper.make_node("Add", ["rows", "placed"], ["y"]),
    ]
    inputs = [(name, TensorProto.INT64, ["batch", "seq"]) for name in ("ids", "positions")]
    tensors = {"table": table, "places_q": np.ones((3, 4), np.uint8), "scale": np.float32(0.5)}
    return write(path, nodes, inputs, {k: np.asarray(v) for k, v in tensors.items()})


def test_the_vocabulary_of_an_input(tmp_path):
    found = inspect(embedder(tmp_path / "a.onnx"), BenchmarkError)
    assert {each.name: each.vocabulary for each in found.inputs} == {"ids": 20, "positions": 3}


def classifier(path, axes):
    """Pixels, divided by 255, through one convolution of 3 channels, averaged."""
    nodes = [
        helper.make_node("Div", ["pixels", "scale"], ["scaled"]),
        helper.make_node("Conv", ["scaled", "weight"], ["seen"]),
        helper.make_node("GlobalAveragePool", ["seen"], ["y"]),
    ]
    tensors = {"scale": np.float32(255), "weight": np.ones((8, 3, 5, 5), np.float32)}
    tensors = {name: np.asarray(value) for name, value in tensors.items()}
    return write(path, nodes, [("pixels", TensorProto.FLOAT, axes)], tensors)


def test_the_channels_of_an_image(tmp_path):
    found = inspect(classifier(tmp_path / "a.onnx", ["n", "c", "h", "w"]), BenchmarkError)
    assert [each.channels for each in found.inputs] == [3]


def test_sizes_that_do_not_fit_are_named(tmp_path):
    path = classifier(tmp_path / "a.onnx", ["n", "c", "h", "w"])
    request = bench.Request(models=(str(path),), dims=("c=4",))
    with pytest.raises(
        BenchmarkError, match=r"does not run(.|\n)*next: +name the sizes.*--dim c=4 --dim h=32"
    ):
        bench.bench({"local": open_target(LocalTarget())}, BenchmarkConfig(workloads=["1x32"]), request, None)


def test_weights_in_the_cache_of_the_hub(tmp_path):
    """Model and weights are links to blobs beside the snapshot; links to elsewhere stay refused."""
    plain, cache = tmp_path / "plain", tmp_path / "models--org--tiny"
    snapshot = cache / "snapshots" / "0123abcd" / "onnx"
    for folder in (plain, cache / "blobs", snapshot):
        folder.mkdir(parents=True)
    model = onnx.load(embedder(plain / "a.onnx", rows=3000))
    onnx.save(model, plain / "a.onnx", save_as_external_data=True, location="a.bin")
    for name, blob in (("a.onnx", "aa"), ("a.bin", "bb")):
        (cache / "blobs" / blob).write_bytes((plain / name).read_bytes())
        (snapshot / name).symlink_to(Path("../../../blobs") / blob)
    found = inspect(snapshot / "a.onnx", BenchmarkError)
    assert found.inputs == inspect(plain / "a.onnx", BenchmarkError).inputs
    job, _ = timing_job(BenchmarkConfig(), {"a": snapshot / "a.onnx"}, {}, tmp_path, {})
    onnxruntime.InferenceSession(job["models"]["a"][0])  # which looks for the weights beside the link
    (snapshot / "a.bin").unlink()
    (snapshot / "a.bin").symlink_to(plain / "a.bin")
    with pytest.raises(BenchmarkError, match="lies outside its folder"):
        inspect(snapshot / "a.onnx", BenchmarkError)


def test_external_data_counts_as_size(tmp_path):
    path = embedder(tmp_path / "a.onnx", rows=3000)
    whole = inspect(path, BenchmarkError).size_bytes
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="a.bin")
    found = inspect(path, BenchmarkError)
    assert found.size_bytes == path.stat().st_size + (tmp_path / "a.bin").stat().st_size
    assert found.size_bytes == pytest.approx(whole, rel=0.05)


FAST = ["benchmark.max_seconds=1", "target.threads=1", "benchmark.workloads=[1x8,4x8]"]


@pytest.mark.slow
def test_the_command(compress, tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        embedder(tmp_path / f"{name}.onnx", seed=seed)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    done = compress("bench", "a.onnx", "b.onnx", *FAST, "--out", "out", COLUMNS="120")
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before

    told = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert list(told["models"]) == ["a.onnx", "b.onnx"]
    assert told["models"]["a.onnx"]["size_bytes"] == len(before["a.onnx"])
    assert told["workloads"]["4x8"]["ids"] == {"dtype": "int64", "shape": [4, 8], "made_up": True}
    assert told["verdict"]["b.onnx"].keys() == {"1x8", "4x8"}
    speed, session = told["speed"], told["speed"]["machine"]["session"]
    for each in ("p50", "p90", "p99"):
        assert speed["latency_ms"]["b.onnx"]["4x8"][each] > 0
    assert speed["cpu_ms"]["a.onnx"]["1x8"] > 0
    wanted = {"threads", "affinity", "providers", "optimization_level", "arena"}
    assert wanted <= session.keys()
    assert session["threads"] == 1
    samples = json.loads((tmp_path / "out" / "samples.json").read_text())
    assert samples["workloads"]["1x8"]["a.onnx"][0]["cpu_seconds"] >= 0

    for word in (
        "1x8",
        "4x8",
        "speed-up",
        "load, ms",
        "first run",
        "peak, MB",
        "steady, MB",
        "noise",
        "onnxru",
    ):
        assert word in done.stdout
    assert re.search(r"faster|slower|not told apart", done.stdout)
    assert "energy counter" in done.stdout or "joules" in done.stdout

    again = compress("bench", "a.onnx", *FAST, "--out", "out")
    assert (again.returncode, "there is a benchmark already" in again.stderr) == (1, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a.onnx", "target.thread=2"], "mean 'threads'"),
        (["a.onnx", "target.max_seconds=2"], "next:    benchmark.max_seconds="),
        (["a.onnx", "target.provider=CPUs"], "knows no such execution provider"),
        (["a.onnx", "benchmark.workloads=[1x8"], "cannot read the overrides"),
        (["a.onnx", "--nothing"], "unknown flag"),
        (["target.threads=1"], "no model is named"),
        (["a.onnx", "--dim", "seq"], "cannot read --dim"),
        (["a.onnx", "--dim", "seq=x"], "--dim seq is no number"),
        (["a.onnx", "--input", "ids=no.npy"], "cannot read the input ids"),
        (["a.onnx", "--input", "idss=ids.npy"], "mean 'ids'"),
        (["a.onnx", "b.onnx"], "no such ONNX file"),
        (["a.onnx", "--input", "ids=big.npy"], "a.onnx does not run"),
    ],
)
def test_what_users_get_wrong(tmp_path, capsys, monkeypatch, words, said):
    from compress.cli.main import main

    monkeypatch.chdir(tmp_path)
    embedder(tmp_path / "a.onnx")
    np.save("ids.npy", np.ones((1, 8), np.int64))
    np.save("big.npy", np.full((1, 8), 10**6))
    assert main(["bench", *words, *([] if "target.threads=1" in words else ["benchmark.max_seconds=1"])]) == 1
    assert said in capsys.readouterr().err


def test_a_request_that_names_no_model():
    from rich.console import Console

    with pytest.raises(ConfigError):
        bench.bench(
            {"local": open_target(LocalTarget())}, BenchmarkConfig(), bench.Request(models=()), Console()
        )


def test_dimensions_of_a_real_input_are_those_of_the_others_too():
    ids = np.zeros((3, 8), np.int64)
    [(name, feeds)] = workloads(["1x128"], given={"input_ids": ids}, **TEXT).items()
    assert name == "3x8"
    assert feeds["input_ids"] is ids
    assert feeds["attention_mask"].shape == (3, 8)
    [(name, feeds)] = workloads(["1x128+30"], given={"input_ids": ids}, **LM).items()
    assert name == "3x8+30"
    assert feeds["attention_mask"].shape == (3, 38)
    pixels = np.zeros((2, 3, 5, 7), np.float32)
    pair = {"left": ("float32", ("n", 3, "h", "w")), "right": ("float32", ("n", 1, "h", "w"))}
    [feeds] = workloads(["1x128"], given={"left": pixels}, **pair).values()
    assert feeds["right"].shape == (2, 1, 5, 7)


def test_a_dimension_that_no_input_has_is_refused():
    with pytest.raises(ConfigError, match=r"no input has this dimension(.|\n)*heigth(.|\n)*'height'"):
        workloads(["1x1"], {"heigth": 3}, pixels=("float32", ("batch", 3, "height", "width")))


def test_a_real_input_of_another_rank_is_left_to_the_runtime():
    ids = np.zeros(8, np.int64)
    [feeds] = workloads(["1x16"], given={"input_ids": ids}, **TEXT).values()
    assert feeds["input_ids"] is ids


@pytest.mark.slow
def test_several_targets(compress, tmp_path, ssh_host, monkeypatch):
    """Those of one machine share a job and a table; another machine has a job and a table of its own."""
    monkeypatch.setattr(console, "_width", 200)  # headings break where the terminal ends
    for name, seed in (("a", 0), ("b", 1)):
        embedder(tmp_path / f"{name}.onnx", seed=seed)
    words = ["target=[local,node,ssh]", *(f"target.{key}={value}" for key, value in ssh_host.items())]
    done = compress("bench", "a.onnx", "b.onnx", *FAST, *words, "--out", "out", COLUMNS="120")
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "out" / "bench.json").read_text())
    here = [f"{model}.onnx on {target}" for target in ("local", "node") for model in "ab"]
    assert list(told["speed"]["latency_ms"]) == here
    assert list(told["verdict"]) == here[1:]
    [elsewhere] = told["others"]
    assert list(elsewhere["latency_ms"]) == ["a.onnx on ssh", "b.onnx on ssh"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("bench.json", "samples.json", "samples_ssh.json")
    }
    spec = json.loads((tmp_path / "out" / "samples.json").read_text())["spec"]
    assert "command" in spec["with"]["a.onnx on node"]
    assert "command" not in spec["with"]["a.onnx on local"]
    assert all(name in done.stdout for name in (*here, "b.onnx on ssh"))
