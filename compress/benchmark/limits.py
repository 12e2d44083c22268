"""What this machine reaches at best, from a calibration of a few seconds, and how fast a model could be.

A roofline (Williams, Waterman, Patterson, CACM 2009) whose peaks are measured with the runtime that ships: a
peak from a data sheet says nothing about a virtual machine, its quota or the kernels of onnxruntime.
"""

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import psutil
from onnx import TensorProto, helper, numpy_helper
from pydantic import TypeAdapter, ValidationError

from compress.benchmark.runner import Worker
from compress.errors import BenchmarkError
from compress.schema.report import ATTENTION, FLOAT, INTEGER, Floor, Limits, Profile

ROWS, WIDTH = 512, 1024  # of the products: 1 to 4 MB each, which fits a second-level cache
WARMUP_SECONDS = 0.3
CALLS = 20
NODES = 200  # of the chain that shows what starting a node costs
TIMES_CACHE = 2.5  # size of the array that cannot stay in a cache
READS = 5
UNKNOWN_CACHE = 64 * 2**20
_LIMITS = TypeAdapter(Limits)


def calibrate(threads: int) -> Limits:
    """Measure this machine with `threads` threads; about 3 s, 2.5 times the last cache's size in memory."""
    with tempfile.TemporaryDirectory() as folder:
        return Limits(
            threads=threads,
            bandwidth_gb_per_s=bandwidth(threads),
            float32_gflops=_rate(Path(folder), threads, np.dtype(np.float32)),
            integer_gops={name: _rate(Path(folder), threads, np.dtype(name)) for name in ("int8", "uint8")},
            cache_bytes=cache_bytes(),
            node_us=_node_us(Path(folder), threads),
        )


def save_limits(limits: Limits, out: Path) -> None:
    (out / "limits.json").write_bytes(_LIMITS.dump_json(limits, indent=2) + b"\n")


def load_limits(folder: Path) -> Limits:
    """What `save_limits` wrote. Raises BenchmarkError when it cannot be read."""
    try:
        return _LIMITS.validate_json((folder / "limits.json").read_bytes())
    except (OSError, ValidationError) as error:
        raise BenchmarkError(
            f"cannot read {folder / 'limits.json'}",
            found=str(error).splitlines()[0],
            next="measure the machine again",
        ) from None


def floor(profile: Profile, limits: Limits) -> Floor:
    """The least time of a call with these products on this machine."""
    integer = sum(each.macs for each in profile.operators if each.kind == INTEGER)
    real = sum(each.macs for each in profile.operators if each.kind in (FLOAT, ATTENTION))
    weights = sum(each.weight_bytes for each in profile.operators)
    resident = limits.cache_bytes is not None and weights <= limits.cache_bytes
    return Floor(
        memory_ms=0.0 if resident else memory_ms(profile, limits),
        integer_ms=2 * integer / max(limits.integer_gops.values()) / 1e6,
        float_ms=2 * real / limits.float32_gflops / 1e6,
    )


def memory_ms(profile: Profile, limits: Limits) -> float:
    """Milliseconds of reading every byte of the products' weights once from memory, none from a cache."""
    return sum(each.weight_bytes for each in profile.operators) / limits.bandwidth_gb_per_s / 1e6


def bandwidth(threads: int, size: int | None = None) -> float:
    """GB/s of reading `size` bytes (by default more than the last cache holds), each thread its part."""
    room = psutil.virtual_memory().available // 4
    size = size or min(room, int(TIMES_CACHE * (cache_bytes() or UNKNOWN_CACHE)))
    parts = np.array_split(np.ones(size // 4, np.float32), threads)
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(READS):
            start = time.perf_counter()
            list(pool.map(np.max, parts))  # max, not sum: it needs one instruction per vector
            best = min(best, time.perf_counter() - start)
    return sum(part.nbytes for part in parts) / best / 1e9


def cache_bytes() -> int | None:
    """Size of the last-level cache; None where Linux does not tell it."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        if text[:-1].isdigit() and text[-1] in units:
            sizes.append(int(text[:-1]) * units[text[-1]])
    return max(sizes, default=None)


def _rate(folder: Path, threads: int, weights: np.dtype) -> float:
    """10^9 operations a second of one product with constant weights of this type, at best."""
    model, feeds = folder / f"{weights}.onnx", folder / f"{weights}.npz"
    given = np.dtype(np.float32) if weights == np.float32 else np.dtype(np.uint8)
    _save_product(model, given, weights)
    np.savez(feeds, x=np.ones((ROWS, WIDTH), given))
    return 2 * ROWS * WIDTH * WIDTH / _least_ms(model, feeds, threads) / 1e6


def _node_us(folder: Path, threads: int) -> float:
    """Microseconds a node in a chain of negations of one number."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("n0", f"n{NODES}"))
    nodes = [helper.make_node("Neg", [f"n{i}"], [f"n{i + 1}"]) for i in range(NODES)]
    model, feeds = folder / "chain.onnx", folder / "chain.npz"
    _save(model, helper.make_graph(nodes, "chain", [x], [y]))
    np.savez(feeds, n0=np.ones(1, np.float32))
    return _least_ms(model, feeds, threads) * 1e3 / NODES


def _least_ms(model: Path, feeds: Path, threads: int) -> float:
    worker = Worker(f"the calibration of this machine, {model.stem}")
    try:
        worker.ask("load", path=str(model), workloads={"x": str(feeds)}, threads=threads)
        worker.ask("first_run", workload="x")
        worker.ask("warm_up", workload="x", seconds=WARMUP_SECONDS, block_ms=50.0)
        return float(min(worker.ask("block", workload="x", count=CALLS)["ms"]))
    finally:
        worker.close()


def _save_product(path: Path, given: np.dtype, weights: np.dtype) -> None:
    made = np.dtype(np.float32) if given == np.float32 else np.dtype(np.int32)
    x, y = (
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(kind), [ROWS, width])
        for name, kind, width in (("x", given, WIDTH), ("y", made, WIDTH))
    )
    values = np.random.default_rng(0).integers(0, 100, (WIDTH, WIDTH)).astype(weights)
    operator = "MatMul" if given == np.float32 else "MatMulInteger"
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", "w"], ["y"])],
        "product",
        [x],
        [y],
        [numpy_helper.from_array(values, "w")],
    )
    _save(path, graph)


def _save(path: Path, graph: onnx.GraphProto) -> None:
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
