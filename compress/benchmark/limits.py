"""What a target reaches at best, from a calibration of a few seconds, and how fast a model could be.

A roofline (Williams, Waterman, Patterson, CACM 2009) whose peaks are measured with the runtime that ships: a
peak from a data sheet says nothing about a virtual machine, its quota or the kernels of onnxruntime.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper

from compress.errors import BenchmarkError
from compress.schema.speed import ATTENTION, FLOAT, INTEGER, Floor, Limits, Profile
from compress.stages.typed_json import read_typed, write_typed
from compress.targets.base import Target

FILE = "limits.json"
ROWS, WIDTH = 512, 1024  # of the products: 1 to 4 MB each, which fits a second-level cache
WARMUP_SECONDS = 0.3
CALLS = 20
NODES = 200  # of the chain that shows what starting a node costs
TIMES_CACHE = 2.5  # size of the array that cannot stay in a cache
UNKNOWN_CACHE = 64 * 2**20
PATIENCE_SECONDS = 600.0
PRODUCTS = {"float32": "float32", "int8": "uint8", "uint8": "uint8"}  # type of weights -> of activations


def calibrate(target: Target) -> Limits:
    """Measure the target with its threads; about 3 s, 2.5 times the last cache's size in memory."""
    cache_bytes = target.facts()["cache_bytes"]
    result = measured(target, int(TIMES_CACHE * (cache_bytes or UNKNOWN_CACHE)))
    gops = {name: 2 * ROWS * WIDTH * WIDTH / result["ms"][name] / 1e6 for name in PRODUCTS}
    return Limits(
        threads=result["threads"],
        bandwidth_gb_per_s=result["bandwidth_gb_per_s"],
        float32_gflops=gops.pop("float32"),
        integer_gops=gops,
        cache_bytes=cache_bytes,
        node_us=result["ms"]["chain"] * 1e3 / NODES,
    )


def measured(target: Target, read_bytes: int) -> dict[str, Any]:
    """What the runner's job `limits` says of the target."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "scratch").mkdir()
        models = _calibration_models(folder, target.facts()["runtime"].get("integer_products"))
        job = {
            "do": "limits",
            "models": {name: [str(model), str(feeds)] for name, (model, feeds) in models.items()},
            "warmup_seconds": WARMUP_SECONDS,
            "calls": CALLS,
            "read_bytes": read_bytes,
        }
        files = [path for pair in models.values() for path in pair]
        return target.run(job, files, folder / "scratch", PATIENCE_SECONDS)


def save_limits(limits: Limits, out: Path) -> None:
    write_typed(out / FILE, limits, Limits)


def load_limits(folder: Path) -> Limits:
    """Those measured into `folder`. Raises BenchmarkError when they cannot be read."""
    return read_typed(folder / FILE, Limits, BenchmarkError, "measure the machine again")


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


def _calibration_models(folder: Path, formats: list[str] | None) -> dict[str, tuple[Path, Path]]:
    """Products with constant weights of three types, and a chain of small nodes: name -> model, feeds.

    Those of integers in one of the `formats` that the runtime multiplies in integers; None: in any.
    """
    models = {name: (folder / f"{name}.onnx", folder / f"{name}.npz") for name in (*PRODUCTS, "chain")}
    values = np.random.default_rng(0).integers(0, 100, (WIDTH, WIDTH))
    floats = f"float[{ROWS}, {WIDTH}]"
    for name, given in PRODUCTS.items():
        x, weights = np.ones((ROWS, WIDTH), given), values.astype(name)
        if given == "float32":
            _save(models[name][0], f"{floats} x", f"{floats} y", "y = MatMul (x, w)", weights)
        elif formats is None or "MatMulInteger" in formats:
            made = floats.replace("float", "int32")
            _save(
                models[name][0], f"uint8[{ROWS}, {WIDTH}] x", f"{made} y", "y = MatMulInteger (x, w)", weights
            )
        else:
            x = x.astype(np.float32)
            _save(models[name][0], f"{floats} x", f"{floats} y", _QDQ, weights)
        np.savez(models[name][1], x=x)
    nodes = " ".join(f"n{i + 1} = Neg (n{i})" for i in range(NODES))
    _save(models["chain"][0], "float[1] n0", f"float[1] n{NODES}", nodes)
    np.savez(models["chain"][1], n0=np.ones(1, np.float32))
    return models


_QDQ = """
    step = Constant <value_float = 0.01> ()
    zero = Constant <value = uint8 {0}> ()
    codes = QuantizeLinear (x, step, zero)
    rounded = DequantizeLinear (codes, step, zero)
    weights = DequantizeLinear (w, step)
    y = MatMul (rounded, weights)
"""


def _save(path: Path, given: str, made: str, nodes: str, weights: np.ndarray | None = None) -> None:
    """A graph in onnx's own text, with the constant `w`."""
    text = f'<ir_version: 8, opset_import: ["": 17]> calibration ({given}) => ({made}) {{ {nodes} }}'
    model = onnx.parser.parse_model(text)
    if weights is not None:
        model.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    onnx.save(model, path)
