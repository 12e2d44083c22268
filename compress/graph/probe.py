"""Look into an ONNX file that nobody vouches for: `python onnx_probe.py < request > reply`.

Runs in a process of its own (see `onnx_file.py`), because a damaged file can crash, hang or exhaust
protobuf and onnxruntime. Imports nothing of ours.

request: {"model": path, "inspect": bool, "strict": bool, "feeds": npz with in.NAME and out.NAME | null,
          "seconds": of CPU, "memory_bytes": of address space}
reply:   a line {"step": what comes next} before every step, then {"graph": ..., "outputs": [...]}
         or {"error": {"what", "found", "allowed"}}
"""

import json
import math
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

MAX_PAIR_BYTES = 10**9  # of the arrays in the npz, unpacked
MAX_TEXT = (80, 320)  # characters of a foreign message: of its beginning and of its end
# Nodes behind which an index is still the same index, or a table the same table.
_THROUGH = {"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "DequantizeLinear"}
# Nodes behind which an image has the channels that it had.
_PIXELWISE = {"Cast", "Identity", "Sub", "Add", "Mul", "Div", "Pad", "QuantizeLinear", "DequantizeLinear"}
_TABLES = {"Gather": (0, 1), "GatherBlockQuantized": (0, 1)}  # operator -> places of table and indices
# onnxruntime registers these in the domain of onnx, which has no such operators.
_ADDED = {"SimplifiedLayerNormalization"}
_FUSED = {"EmbedLayerNormalization", "QEmbedLayerNormalization"}


class Refused(Exception):
    def __init__(self, what: str, found: object = None, allowed: object = None) -> None:
        self.reply = {"what": what, "found": _text(found), "allowed": _text(allowed)}
        super().__init__(what)


def main() -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever onnxruntime prints must not end up among the replies

    def tell(**reply: object) -> None:
        print(json.dumps(reply), file=replies, flush=True)

    request = json.load(sys.stdin)
    step = ""

    def begin(what: str) -> None:
        nonlocal step
        step = what
        tell(step=what)

    try:
        begin("starting")
        _limit(request)
        import onnx  # noqa: F401
        import onnxruntime

        path, graph, outputs = Path(request["model"]), None, None
        if request["inspect"]:
            begin("reading it")
            graph = inspect(path, request["strict"])
        if request["feeds"]:
            begin("reading the inputs")
            inputs, expected = read_pair(Path(request["feeds"]))
            begin("loading it")
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1  # no pool: nothing but the model counts against the limits
            options.log_severity_level = 4
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            begin("running it")
            outputs = run(session, inputs, expected)
        tell(graph=graph, outputs=outputs)
    except Refused as refused:
        tell(error=refused.reply)
    except BaseException as error:
        signs = ("bad_alloc", "bad allocation", "failed to allocate")
        full = isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in signs)
        tell(error={"what": None, "step": step, "found": _text(error) or type(error).__name__, "full": full})


def _limit(request: dict[str, Any]) -> None:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    limits = {
        "RLIMIT_AS": request["memory_bytes"],
        "RLIMIT_CPU": math.ceil(request["seconds"]),
        "RLIMIT_CORE": 0,
        "RLIMIT_FSIZE": 0,  # whatever a file may make a library do: it writes nothing
    }
    for name, value in limits.items():
        hard = resource.getrlimit(getattr(resource, name))[1]
        if hard == resource.RLIM_INFINITY or value <= hard:
            resource.setrlimit(getattr(resource, name), (value, hard))


# ---- the file -----------------------------------------------------------------------------------


def inspect(path: Path, strict: bool) -> dict[str, Any]:
    """Inputs, outputs and size of the graph; Refused where a tensor or a file is not what it should be.

    `strict` also asks onnx's checker, which refuses some files that onnxruntime runs.
    """
    import onnx

    model = onnx.load(path, load_external_data=False)
    if not model.graph.node:
        raise Refused("is not a valid ONNX model", found="a graph without nodes")
    beside = {path.resolve()}
    for name, tensor in tensors(model):
        beside |= check_tensor(name, tensor, path.parent)
    constants = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    described = {
        "inputs": [
            {
                **describe(value),
                "vocabulary": vocabulary(model.graph, value.name),
                "channels": channels(model.graph, value.name),
            }
            for value in model.graph.input
            if value.name not in constants
        ],
        "outputs": [value.name for value in model.graph.output],
        "opset": max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0),
        "size_bytes": sum(file.stat().st_size for file in beside),
    }
    if strict:
        check_strictly(path, model)
    return described


def check_strictly(path: Path, model: Any) -> None:
    """onnx's checker, without its doubts about the operators that onnxruntime adds to onnx's own domain.

    To the checker those belong to another domain, whose operators it does not know. It then gets the graph
    alone: external data was looked at before. `model` is what lies at `path`, and is used up.
    """
    import onnx

    added = [node for node in model.graph.node if node.op_type in _ADDED and node.domain in ("", "ai.onnx")]
    if not added:
        return onnx.checker.check_model(path)
    for node in added:
        node.domain = "com.microsoft"
    if all(opset.domain != "com.microsoft" for opset in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    outside = [t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    for tensor in outside:
        value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        if value.name not in {each.name for each in model.graph.input}:
            model.graph.input.append(value)
        model.graph.initializer.remove(tensor)
    onnx.checker.check_model(model)


def tensors(model: Any) -> Iterator[tuple[str, Any]]:
    """Every tensor with its name: initialisers and attributes, also those of subgraphs and functions."""

    def of_nodes(nodes: Any) -> Iterator[tuple[str, Any]]:
        for node in nodes:
            for attribute in node.attribute:
                for tensor in (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors):
                    yield tensor.name or f"{node.name or node.op_type}.{attribute.name}", tensor
                for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                    yield from of_graph(graph)

    def of_graph(graph: Any) -> Iterator[tuple[str, Any]]:
        yield from ((tensor.name, tensor) for tensor in graph.initializer)
        for sparse in graph.sparse_initializer:
            yield from (
                (tensor.name or sparse.values.name, tensor) for tensor in (sparse.values, sparse.indices)
            )
        yield from of_nodes(graph.node)

    yield from of_graph(model.graph)
    for function in model.functions:
        yield from of_nodes(function.node)


def check_tensor(name: str, tensor: Any, folder: Path) -> set[Path]:
    """Its data is there, inside `folder`, of the size its shape needs, without NaN. The files it lies in."""
    from onnx import TensorProto, helper

    types = TensorProto.DataType
    if tensor.data_type not in types.values() or tensor.data_type == types.UNDEFINED:
        raise Refused(f"tensor {_text(name)} has an unknown type", found=tensor.data_type)
    kind = types.Name(tensor.data_type)
    if any(dim < 0 for dim in tensor.dims):
        raise Refused(f"tensor {_text(name)} has a negative dimension", found=list(tensor.dims))
    count = math.prod(tensor.dims)
    if kind == "STRING":
        if len(tensor.string_data) != count:
            raise Refused(
                f"tensor {_text(name)} has another size than its shape", len(tensor.string_data), count
            )
        return set()
    bits = {"UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4, "UINT2": 2, "INT2": 2}.get(kind)
    bits = bits or {"FLOAT6E2M3": 6, "FLOAT6E3M2": 6}.get(kind)
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    needed = math.ceil(count * (bits or 8 * dtype.itemsize) / 8)
    if tensor.data_location == TensorProto.EXTERNAL:
        file, offset = external(name, tensor, folder, needed)
        data = np.memmap(file, np.uint8, "r", offset, (needed,)) if needed else np.zeros(0, np.uint8)
        files = {file}
    elif tensor.HasField("raw_data"):
        data, files = np.frombuffer(tensor.raw_data, np.uint8), set()
        if len(data) != needed:
            raise Refused(
                f"tensor {_text(name)} has another size than its shape",
                found=f"{len(data)} bytes",
                allowed=f"{needed} bytes for {list(tensor.dims)}",
            )
    else:
        held = getattr(tensor, helper.tensor_dtype_to_field(tensor.data_type))
        fewest = math.ceil(count * (bits or 8) / 8) * (2 if kind.startswith("COMPLEX") else 1)
        if len(held) < fewest:
            raise Refused(f"tensor {_text(name)} has fewer values than its shape", len(held), fewest)
        if kind in ("FLOAT", "DOUBLE") and np.isnan(np.fromiter(held, np.float64)).any():
            raise Refused(f"tensor {_text(name)} holds NaN")
        return set()
    if bits is None and dtype.kind not in "iub" and has_nan(data.view(dtype)):
        raise Refused(f"tensor {_text(name)} holds NaN")
    return files


def has_nan(values: np.ndarray, chunk: int = 1 << 20) -> bool:
    return any(bool(np.isnan(values[i : i + chunk]).any()) for i in range(0, len(values), chunk))


def external(name: str, tensor: Any, folder: Path, needed: int) -> tuple[Path, int]:
    """File and offset of data beside the model; Refused unless it lies in `folder`, or in the same cache of
    the hub, and is long enough."""
    what = f"the external data of tensor {_text(name)}"
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if len(entries) < len(tensor.external_data):
        raise Refused(f"{what} is described twice")
    location = entries.get("location", "")
    try:
        file = (folder / location).resolve()
        inside = any(file.is_relative_to(root) for root in roots(folder))
    except (OSError, ValueError, RuntimeError):  # too long, a null byte, links in a circle
        inside = False
    path = PurePosixPath(location.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not inside:
        raise Refused(f"{what} lies outside its folder", found=location)
    if not file.is_file():
        raise Refused(f"{what} is missing", found=f"no file {location}")
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length", str(needed)))
    except ValueError:
        raise Refused(f"{what} has no readable place", found=f"{entries}") from None
    size = file.stat().st_size
    if offset < 0 or length != needed or offset + length > size:
        raise Refused(
            f"{what} does not fit its shape or its file",
            found=f"{length} bytes at {offset} of {location}",
            allowed=f"{needed} bytes for {list(tensor.dims)} within {size}",
        )
    return file, offset


def roots(folder: Path) -> list[Path]:
    """Where data of a model in `folder` may lie: there, and of a snapshot in a cache of the hub in `blobs`
    beside it, to which its files are links."""
    whole = folder.resolve()
    snapshots = [at for at in (whole, *whole.parents) if at.parent.name == "snapshots"]
    models = [at.parents[1] for at in snapshots if at.parents[1].name.startswith("models--")]
    return [whole, *(at / "blobs" for at in models)]


def describe(value: Any) -> dict[str, Any]:
    """Name, numpy dtype (None for no tensor, or one that numpy lacks) and shape (a name where it is open)."""
    from onnx import TensorProto, helper

    tensor = value.type.tensor_type
    known = set(TensorProto.DataType.values()) - {TensorProto.UNDEFINED, TensorProto.STRING}
    numeric = value.type.HasField("tensor_type") and tensor.elem_type in known
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type) if numeric else None
    shape = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in tensor.shape.dim]
    plain = dtype is not None and dtype.kind in "fiub" and dtype.isbuiltin == 1
    return {"name": value.name, "dtype": dtype.name if plain and dtype else None, "shape": shape}


def vocabulary(graph: Any, name: str) -> int | None:
    """Rows of the smallest table that is indexed with this input; None where no such table is found."""
    rows = {tensor.name: tensor.dims[0] for tensor in graph.initializer if len(tensor.dims) > 1}
    for node in graph.node:  # sorted: a table's rows are known before its reader comes
        if node.op_type == "Constant" and len(node.attribute) == 1 and len(node.attribute[0].t.dims) > 1:
            rows[node.output[0]] = node.attribute[0].t.dims[0]
    same, found = {name}, []
    for node in graph.node:
        first = node.input[0] if node.input else ""
        if node.op_type in _THROUGH and node.output:
            if first in same:
                same.add(node.output[0])
            if first in rows and node.op_type in ("Cast", "Identity", "DequantizeLinear"):
                rows[node.output[0]] = rows[first]
        elif node.op_type in _TABLES and len(node.input) > 1:
            table, indices = (node.input[place] for place in _TABLES[node.op_type])
            axis = next((a.i for a in node.attribute if a.name in ("axis", "gather_axis")), 0)
            if indices in same and table in rows and axis == 0:
                found.append(rows[table])
        elif node.op_type in _FUSED and len(node.input) > 4:
            for indices, table in ((node.input[0], node.input[2]), (node.input[1], node.input[4])):
                if indices in same and table in rows:
                    found.append(rows[table])
    return min(found, default=None)


def channels(graph: Any, name: str) -> int | None:
    """Of the images that this input is, by the weights of the first convolution that reads it."""
    weights = {tensor.name: tensor.dims[1] for tensor in graph.initializer if len(tensor.dims) > 2}
    same = {name}
    for node in graph.node:
        weight = next((weights[each] for each in node.input if each in weights), None)
        if node.op_type in _PIXELWISE and same & set(node.input):
            same.add(node.output[0])
        elif node.op_type in _PIXELWISE and weight is not None:
            weights[node.output[0]] = weight
        elif "Conv" in node.op_type and weight is not None and same & set(node.input[:1]):
            return int(weight) * next((a.i for a in node.attribute if a.name == "group"), 1)
    return None


# ---- a run --------------------------------------------------------------------------------------


def read_pair(path: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Inputs and expected outputs; their unpacked size is looked at before anything is unpacked."""
    with zipfile.ZipFile(path) as archive:
        size = sum(each.file_size for each in archive.infolist())
    if size > MAX_PAIR_BYTES:
        raise Refused(f"{path.name} unpacks to too much", f"{size} bytes", f"at most {MAX_PAIR_BYTES}")
    with np.load(path, allow_pickle=False) as pair:
        inputs = {name[3:]: pair[name] for name in pair.files if name.startswith("in.")}
        expected = {name[4:]: pair[name] for name in pair.files if name.startswith("out.")}
    return inputs, expected


def run(session: Any, inputs: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """What each output is like: the expected ones, or all where none is expected."""
    names = list(expected) or [output.name for output in session.get_outputs()]
    return [
        {
            "name": name,
            "shape": list(np.shape(got)),
            "has_nan": isinstance(got, np.ndarray) and got.dtype.kind == "f" and bool(np.isnan(got).any()),
            "wanted_shape": list(expected[name].shape) if name in expected else None,
            "cosine": cosine(expected[name], got) if name in expected else None,
        }
        for name, got in zip(names, session.run(names, inputs), strict=True)
    ]


def cosine(wanted: np.ndarray, got: np.ndarray) -> float:
    """Of the arrays as one vector each; NaN, which no floor lets pass, where they cannot be compared."""
    if wanted.shape != np.shape(got) or wanted.dtype.kind != "f" or got.dtype.kind != "f":
        return float("nan")
    wanted, got = wanted.astype(np.float64), got.astype(np.float64)
    return float(np.sum(wanted * got) / max(1e-12, float(np.linalg.norm(wanted) * np.linalg.norm(got))))


def _text(value: object) -> str | None:
    """A foreign text as one short line without control characters."""
    if value is None:
        return None
    line, (head, tail) = " ".join(str(value).split()), MAX_TEXT
    line = line if len(line) <= head + tail else f"{line[:head]} ... {line[-tail:]}"
    return "".join(c if c.isprintable() else "?" for c in line)


if __name__ == "__main__":
    main()
