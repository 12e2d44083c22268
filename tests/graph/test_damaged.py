"""A hundred damaged models: each a named error within seconds, never a traceback, nothing touched outside."""

import contextlib
import os
import random
import re
import shutil
import time
import zipfile
from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress import artifact
from compress.artifact import Manifest, verify, write_artifact
from compress.benchmark import timing
from compress.cli.main import main
from compress.errors import ArtifactError, BenchmarkError
from compress.graph import untrusted as onnx_file
from compress.graph.untrusted import inspect, trial
from compress.stages.result import write_result

ONE_MESSAGE = r"\Aerror: [^\n]+\n(  (found|allowed|next): +[^\n]+\n)+\Z"
HANG = 10.0  # seconds, of a check on a machine with a free core
ROWS, WIDTH = 50, 16
OPSETS = [helper.make_opsetid("", 18)]
MANIFEST = Manifest(
    name="tiny",
    base_model="b",
    source="path:b",
    license="mit",
    lineage=(),
    config={},
    environment={},
    splits={},
    headline={"ships": True},
    opset=18,
)


def valid():
    """y = mean over tokens of table[ids] W + b; ids are [batch, tokens]."""
    rng = np.random.default_rng(0)
    arrays = {
        "table": rng.normal(size=(ROWS, WIDTH)),
        "w": rng.normal(size=(WIDTH, WIDTH)),
        "b": rng.normal(size=WIDTH),
    }
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("MatMul", ["rows", "w"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["sum"]),
        helper.make_node("GlobalAveragePool", ["sum"], ["pooled"]),
        helper.make_node("Squeeze", ["pooled", "axis"], ["y"]),
    ]
    tensors = [numpy_helper.from_array(a.astype(np.float32), name) for name, a in arrays.items()]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "tokens"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "tokens"])],
        [*tensors, numpy_helper.from_array(np.array([2]), "axis")],
    )
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=10)


# ---- damage: each takes a folder with a valid model.onnx and a random.Random ----------------------


def save(folder, model):
    (folder / "model.onnx").write_bytes(model.SerializeToString())


def flip(folder, rng):
    content = bytearray((folder / "model.onnx").read_bytes())
    for _ in range(rng.choice([1, 3, 30])):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    (folder / "model.onnx").write_bytes(bytes(content))


def flip_structure(folder, rng):
    """As `flip`, where there are no weights: nodes, names, shapes, opset."""
    content = bytearray((folder / "model.onnx").read_bytes())
    places = [*range(200), *range(len(content) - 150, len(content))]
    for _ in range(rng.choice([2, 5, 30])):
        content[rng.choice(places)] = rng.randrange(256)
    (folder / "model.onnx").write_bytes(bytes(content))


def truncate(folder, rng):
    path = folder / "model.onnx"
    os.truncate(path, rng.randrange(path.stat().st_size - 1))


def something_else(folder, rng):
    path = folder / "model.onnx"
    path.unlink()
    kind = rng.choice(["random", "text", "pickle", "zip", "pipe", "folder", "deep"])
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a", bytes(10**7))
    else:
        deep = b""
        for _ in range(3000):  # a graph in an attribute in a node in a graph ...
            for field in (b"\x32", b"\x2a", b"\x0a"):
                size, length = len(deep), b""
                while size > 127:
                    length, size = length + bytes([size & 127 | 128]), size >> 7
                deep = field + length + bytes([size]) + deep
        contents = {"random": rng.randbytes(5000), "text": b"no model\n", "pickle": b"\x80\x04."}
        path.write_bytes({**contents, "deep": deep}[kind])


def set_external(folder, tensor, **entries):
    """Move `tensor` of the model into a file; `entries` overrule what is true."""
    model = onnx.load(folder / "model.onnx")
    found = next(each for each in model.graph.initializer if each.name == tensor)
    true = {"location": "data.bin", "offset": "0", "length": str(len(found.raw_data))}
    if {**true, **entries}["location"] == "data.bin":
        (folder / "data.bin").write_bytes(found.raw_data)
    found.ClearField("raw_data")
    found.data_location = TensorProto.EXTERNAL
    for key, value in {**true, **entries}.items():
        found.external_data.add(key=key, value=value)
    save(folder, model)


def external_missing(folder, rng):
    set_external(
        folder, rng.choice(["table", "w", "b"]), location=rng.choice(["gone.bin", "", "a/b", "\x00"])
    )


def external_outside(folder, rng):
    """Every way leads to a pipe, so that whoever opened it would wait for ever."""
    pipe = folder.parent / "outside" / "pipe"
    (folder / "link").symlink_to(pipe)
    (folder / "into").symlink_to(pipe.parent)
    ways = [str(pipe), "../outside/pipe", "x/../../outside/pipe", "link", "into/pipe", "..\\outside\\pipe"]
    set_external(folder, "w", location=rng.choice([*ways, "/etc/hostname", "*/_ORT_MEM_ADDR_/*"]))


def external_misplaced(folder, rng):
    wrong = [{"offset": "-4"}, {"offset": "8"}, {"length": str(2**62)}, {"length": "4"}, {"offset": "x"}]
    set_external(folder, "w", **rng.choice([*wrong, {"offset": str(2**63)}, {"offset": "1e3"}]))


def wrong_opset(folder, rng):
    model = onnx.load(folder / "model.onnx")
    model.opset_import[0].version = rng.choice([0, -1, 99, 2**62])
    save(folder, model)


def nan(folder, rng):
    model = onnx.load(folder / "model.onnx")
    tensor = model.graph.initializer[rng.randrange(3)]
    values = numpy_helper.to_array(tensor).copy()
    values.flat[rng.randrange(values.size)] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    if rng.random() < 0.5:
        tensor.ClearField("raw_data")
        tensor.float_data.extend(values.ravel().tolist())
    save(folder, model)


def renamed_output(folder, rng):
    model = onnx.load(folder / "model.onnx")
    model.graph.output[0].name = "z"
    if rng.random() < 0.5:  # a sound model, but another one
        model.graph.node[-1].output[0] = "z"
    save(folder, model)


def wrong_dtype(folder, rng):
    model = onnx.load(folder / "model.onnx")
    if rng.random() < 0.5:
        tensor = model.graph.initializer[rng.randrange(3)]
        tensor.data_type = rng.choice([TensorProto.DOUBLE, TensorProto.INT8, TensorProto.STRING, 0, 77])
    else:
        value = model.graph.input[0].type.tensor_type
        value.elem_type = rng.choice([TensorProto.FLOAT, TensorProto.STRING, TensorProto.BFLOAT16, 0, 77])
    save(folder, model)


def bomb(folder, rng):
    """A small file that asks for terabytes."""
    model, size = onnx.load(folder / "model.onnx"), rng.choice([10**12, 2**40, 2**62])
    kind = rng.choice(["initializer", "filled", "sparse", "input"])
    if kind == "initializer":
        model.graph.initializer[1].dims[0] = size
    elif kind == "input":
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = size
    elif kind == "sparse":
        values, at = numpy_helper.from_array(np.ones(1, np.float32), "s"), np.zeros(1, np.int64)
        model.graph.sparse_initializer.append(
            helper.make_sparse_tensor(values, numpy_helper.from_array(at, "s_at"), [size])
        )
        model.graph.node[2].input[1] = "s"
    else:
        model.graph.initializer.append(numpy_helper.from_array(np.array([size]), "size"))
        model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["size"], ["big"]))
        model.graph.node.insert(3, helper.make_node("ReduceMax", ["big"], ["most"], keepdims=0))
        model.graph.node[4].input[1] = "most"
    save(folder, model)


def endless(folder, rng):
    """A loop of 2^62 turns; outside of what constant folding reads, or inside."""
    model = onnx.load(folder / "model.onnx")
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["on_out"]), helper.make_node("Neg", ["v"], ["v_out"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_out", TensorProto.FLOAT, None),
        ],
    )
    start = rng.choice(["b", "y"])
    model.graph.initializer.append(numpy_helper.from_array(np.array(2**62), "turns"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.append(helper.make_node("Loop", ["turns", "yes", start], ["end"], body=body))
    if start == "y":
        model.graph.output[0].name = "end"
    else:
        model.graph.node.append(helper.make_node("ReduceMax", ["end"], ["most"], keepdims=0))
        model.graph.node.append(helper.make_node("Add", ["y", "most"], ["z"]))
        model.graph.output[0].name = "z"
    save(folder, model)


def wiring(folder, rng):
    model = onnx.load(folder / "model.onnx")
    kind = rng.choice(["circle", "dangling", "operator", "domain", "empty", "twice", "index"])
    if kind == "circle":
        model.graph.node[1].input[0] = "y"
    elif kind == "dangling":
        model.graph.node[2].input[1] = "nothing"
    elif kind == "operator":
        model.graph.node[2].op_type = "Addd"
    elif kind == "domain":
        model.graph.node[2].domain = "com.example"
    elif kind == "empty":
        model.graph.ClearField("node")
    elif kind == "twice":
        model.graph.node[2].output[0] = "product"
    else:
        model.graph.initializer[3].CopyFrom(numpy_helper.from_array(np.array([2**40]), "axis"))
    save(folder, model)


KINDS = [
    flip, flip_structure, truncate, something_else, external_missing, external_outside, external_misplaced,
    wrong_opset, nan, renamed_output, wrong_dtype, bomb, endless, wiring,
]  # fmt: skip
# Nobody can tell a flipped bit of a weight from a trained one; another output's name is another model.
BENCH_MAY_TIME = {flip, flip_structure, renamed_output}
SEALED_MAY_PASS = {flip, flip_structure}


# ---- what the commands do with it -----------------------------------------------------------------


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """An artifact that verifies."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "graph").mkdir()
    save(folder / "graph", valid())
    write_result(folder / "graph", ships=["model.onnx"])
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "config.json").write_text("{}")
    write_artifact(
        folder / "artifact",
        graph=folder / "graph",
        checkpoint=folder / "checkpoint",
        inputs={"ids": np.arange(2 * 6).reshape(2, 6)},
        card="# card\n",
        manifest=MANIFEST,
        keep_checkpoint=False,
    )
    return folder / "artifact"


@pytest.fixture
def damaged(tmp_path, whole):
    """Number -> kind and an artifact with damage done to its model, beside a folder that is none of its."""
    (tmp_path / "outside").mkdir()
    os.mkfifo(tmp_path / "outside" / "pipe")
    (tmp_path / "outside" / "file").write_text("untouched")

    def make(number):
        folder = tmp_path / f"damaged-{number}"
        shutil.copytree(whole, folder)
        kind = KINDS[number % len(KINDS)]
        kind(folder, random.Random(number))
        return kind, folder

    return make


def state(folder):
    """Everything below: names, and of files the content and the time of the last change."""
    return {
        str(path): (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in sorted(folder.rglob("*"))
    }


def seal(folder):
    """Manifest and sums for what is there now, as somebody who tampers would make them."""
    for name in ("manifest.json", "SHA256SUMS"):
        (folder / name).unlink()
    artifact._seal(folder, MANIFEST)


class TimedError(Exception):
    """The model was found fit to be timed, which is not what is tested here."""


@pytest.fixture
def run(capsys, monkeypatch):
    """The command line in this process: exit code, what it said and seconds of wall and of CPU."""

    def stop(*_, **__):
        raise TimedError

    monkeypatch.setattr(timing, "time_models", stop)

    def run(*words):
        capsys.readouterr()
        start, cpu = time.monotonic(), cpu_seconds()
        try:
            code = main(list(words))  # whatever else is raised here would have been a traceback
        except TimedError:
            code = 0
        return code, capsys.readouterr().err, time.monotonic() - start, cpu_seconds() - cpu

    return run


def cpu_seconds():
    """Of this process and of the children that have ended."""
    spent = os.times()
    return sum(spent[:4])


def check(run, kind, folder, seen):
    """The three commands on one damaged model."""
    target = ["benchmark.max_seconds=1", "benchmark.workloads=[1x8]", "target.threads=1"]
    before = state(folder.parent)
    for name, words, may_pass in (
        ("bench", ["bench", str(folder), *target], kind in BENCH_MAY_TIME),
        ("verify", ["verify", str(folder)], False),
        ("verify, sealed", ["verify", str(folder)], kind in SEALED_MAY_PASS),
    ):
        if name == "verify, sealed":
            with contextlib.suppress(OSError):
                seal(folder)
            before = state(folder.parent)
        code, said, seconds, cpu = run(*words)
        assert state(folder.parent) == before
        assert "Traceback" not in said
        if code == 0:
            assert may_pass, f"{name}: {kind.__name__} was not noticed"
        else:
            assert code == 1, (name, code, said)
            assert re.match(ONE_MESSAGE, said), said
            assert cpu < HANG, (name, said)
            assert seconds < 6 * HANG, (name, said)  # on a machine with other work
        seen.append((name, kind.__name__, code, seconds, cpu, said.split("\n")[0]))


def test_the_model_that_is_damaged_is_sound(whole, tmp_path):
    verify(whole)
    graph = inspect(whole / "model.onnx", BenchmarkError)
    assert [(i.name, i.dtype, i.shape, i.vocabulary) for i in graph.inputs] == [
        ("ids", "int64", ("batch", "tokens"), ROWS)
    ]
    assert graph.outputs == ("y",)
    assert (graph.opset, graph.size_bytes) == (18, (whole / "model.onnx").stat().st_size)
    with np.load(whole / "check.npz") as pair:
        wanted = numpy_reference(pair["in.ids"])
        np.testing.assert_allclose(pair["out.y"], wanted, rtol=1e-5)


def numpy_reference(ids):
    tensors = {t.name: numpy_helper.to_array(t) for t in valid().graph.initializer}
    return (tensors["table"][ids] @ tensors["w"] + tensors["b"]).mean(axis=2)


@pytest.mark.parametrize("number", range(len(KINDS)), ids=[kind.__name__ for kind in KINDS])
def test_one_of_each_kind(damaged, run, monkeypatch, number):
    monkeypatch.setattr(onnx_file, "CPU_SECONDS", 2.0)
    kind, folder = damaged(number)
    check(run, kind, folder, [])


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_hundred_damaged_models(damaged, run):
    """Every other one unless DAMAGED=all."""
    seen = []
    for number in range(0, 100, 1 if os.environ.get("DAMAGED") == "all" else 2):
        kind, folder = damaged(number)
        check(run, kind, folder, seen)
        shutil.rmtree(folder)
    for name in ("bench", "verify", "verify, sealed"):
        of_name = [each for each in seen if each[0] == name]
        refused = [each for each in of_name if each[2]]
        wall, cpu = (max(each[place] for each in refused) for place in (3, 4))
        print(f"\n{name}: {len(refused)} of {len(of_name)} refused, at most {wall:.1f} s, {cpu:.1f} s of CPU")
        said = Counter(re.sub(r"(tensor|input) \S+|damaged-\d+", r"\1 ...", each[5]) for each in refused)
        print("\n".join(f"  {count:3} {what}" for what, count in said.most_common()))
        print("  passed:", dict(Counter(each[1] for each in of_name if not each[2])))
        assert len(refused) >= 0.85 * len(of_name)


# ---- the stored pair ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["unpacks to too much", "claims terabytes", "no zip", "pipe"])
def test_a_stored_pair_that_would_fill_the_memory(whole, tmp_path, form):
    folder = tmp_path / "artifact"
    shutil.copytree(whole, folder)
    pair = folder / "check.npz"
    pair.unlink()
    if form == "pipe":
        os.mkfifo(pair)
    elif form == "no zip":
        pair.write_bytes(b"PK\x03\x04 no zip")
    else:
        header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"
        with (
            zipfile.ZipFile(pair, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
            archive.open("in.ids.npy", "w", force_zip64=True) as member,
        ):
            member.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
        if form == "unpacks to too much":  # zipfile reads no more than the directory says
            with zipfile.ZipFile(pair, "a") as archive:
                archive.filelist[0].file_size = 10**13
                archive.writestr("in.b.npy", b"")
    seal(folder)
    start = cpu_seconds()
    with pytest.raises(
        ArtifactError, match=r"unpacks to too much|too much memory|does not run|not list|not a f"
    ):
        verify(folder)
    assert cpu_seconds() - start < HANG


def test_a_run_that_outlives_its_time_names_the_step(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "CPU_SECONDS", 1.5)
    folder = tmp_path / "model"
    folder.mkdir()
    save(folder, valid())
    endless(folder, random.Random(1))
    np.savez(tmp_path / "feeds.npz", **{"in.ids": np.zeros((1, 4), np.int64)})
    with pytest.raises(
        BenchmarkError, match=r"does not come to an end\n  found:   still (running|loading) it"
    ):
        trial(folder / "model.onnx", tmp_path / "feeds.npz", BenchmarkError)
