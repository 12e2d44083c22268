"""Can the benchmark be trusted? A/A, a planted slow-down, a loaded core, and interleaved beside lonely.

python experiments/benchmark_trust/run.py --runs 40 --seconds 20 --out DIR
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from compress.benchmark.stats import drift, noise_facts, verdict
from compress.benchmark.timing import time_models
from compress.config.benchmark import BenchmarkConfig
from compress.config.target import LocalTarget
from compress.runner.machine import machine_facts
from compress.runner.with_onnxruntime import runtime_facts
from compress.targets import open_target

WIDTH, ROWS, LAYERS = 768, 32, 40
SLOW_DOWN = 0.05  # two layers more on forty: 5 % more work of the same kind
COMPANIONS = 3


def chain(path: Path, layers: int) -> Path:
    """`layers` times MatMul and Relu on [rows, 768]: the work of a small encoder's linear layers."""
    random = np.random.default_rng(0)
    nodes, weights, last = [], [], "x"
    for i in range(layers):
        weight = random.standard_normal((WIDTH, WIDTH)).astype(np.float32) * (2 / WIDTH) ** 0.5
        weights.append(numpy_helper.from_array(weight, f"w{i}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{i}"], [f"m{i}"]))
        nodes.append(helper.make_node("Relu", [f"m{i}"], [f"y{i}"]))
        last = f"y{i}"
    value = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", WIDTH])]
    output = [helper.make_tensor_value_info(last, TensorProto.FLOAT, ["rows", WIDTH])]
    graph = helper.make_graph(nodes, "chain", value, output, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


def one_run(models: dict[str, Path], seconds: float, threads: int, seed: int) -> dict[str, object]:
    """One benchmark in a folder of its own; what it said of the model `other`, if there is one."""
    feeds = np.random.default_rng(1).standard_normal((ROWS, WIDTH)).astype(np.float32)
    target = open_target(LocalTarget(threads=threads))
    config = BenchmarkConfig(max_seconds=seconds, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        speed = time_models(target, config, models, {"rows": {"x": feeds}}, Path(folder))
        samples = json.loads((Path(folder) / "samples.json").read_text())
    found: dict[str, object] = {
        "p50_ms": speed.latency_ms["base"]["rows"].p50,
        "noise": list(speed.noise),
        "seen": noise_facts(samples),
        "drift": drift(samples["workloads"]["rows"]["base"]),
        "seconds": speed.machine["seconds"],
        "stopped": speed.machine["stopped"],
    }
    if "other" in models:
        ratio = speed.speedup["other"]["rows"]
        found |= {"speedup": ratio.value, "ci95": ratio.ci95, "verdict": verdict(ratio)}
    return found


def with_loaded_core(measure: Callable[[], dict[str, object]]) -> dict[str, object]:
    load = subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"])
    try:
        return measure()
    finally:
        load.kill()
        load.wait()


def summary(runs: dict[str, list[dict[str, object]]]) -> str:
    """The table of README.md."""

    def count(case: str, hit: Callable[[dict[str, object]], bool]) -> str:
        return f"{sum(map(hit, runs[case]))} of {len(runs[case])}"

    def quiet(case: str) -> str:
        return count(case, lambda run: bool(run["noise"]))

    pairs = zip(runs["alone"], runs["beside"], strict=True)
    change = np.median([beside["p50_ms"] / alone["p50_ms"] - 1 for alone, beside in pairs])  # type: ignore[operator]
    told_apart = count("same", lambda run: run["verdict"] != "not told apart")
    found = count("planted", lambda run: run["verdict"] == "slower")
    return "\n".join(
        [
            "| case | asked | found | noise verdicts |",
            "|---|---|---|---|",
            f"| a model against itself: told apart | at most 3 of 40 | {told_apart} | {quiet('same')} |",
            f"| planted slow-down of 5 %: called slower | at least 36 of 40 | {found} | {quiet('planted')} |",
            f"| another process loads a core: noise verdict | at least 36 of 40 | {quiet('loaded')} | |",
            f"| p50 beside {COMPANIONS} other models against alone | within 2 % | {change:+.1%} (median) "
            f"| {quiet('beside')} |",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=20.0, help="of one run, at most")
    parser.add_argument("--threads", type=int, default=0, help="0: all physical cores")
    parser.add_argument("--out", type=Path, required=True, help="folder for results.json and table.md")
    args = parser.parse_args()

    runs: dict[str, list[dict[str, object]]] = {
        case: [] for case in ("same", "planted", "loaded", "alone", "beside")
    }
    with tempfile.TemporaryDirectory() as folder:
        base = chain(Path(folder) / "base.onnx", LAYERS)
        slow = chain(Path(folder) / "slow.onnx", round(LAYERS * (1 + SLOW_DOWN)))
        companions = {f"companion{i}": base for i in range(COMPANIONS)}
        for seed in range(args.runs):  # the cases take turns, so that a bad hour hits all of them
            cases = {
                "same": ({"base": base, "other": base}, 1.0),
                "planted": ({"base": base, "other": slow}, 1.0),
                "loaded": ({"base": base, "other": base}, 0.5),  # the noise verdict is all that counts
                "alone": ({"base": base}, 1.0),
                "beside": ({"base": base, **companions}, 1.0),
            }
            for case, (models, part) in cases.items():
                if case in ("alone", "beside") and seed % 5:
                    continue  # a time within 2 % needs fewer runs than a count of 36 in 40
                measure = partial(one_run, models, part * args.seconds, args.threads, seed)
                runs[case].append(with_loaded_core(measure) if case == "loaded" else measure())
                print(seed, case, json.dumps(runs[case][-1]), flush=True)
            save(args.out, runs)
    print(summary(runs))


def save(out: Path, runs: dict[str, list[dict[str, object]]]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    facts = {**machine_facts(runtime_facts()), "cpus_allowed": len(os.sched_getaffinity(0))}
    (out / "results.json").write_text(json.dumps({"machine": facts, "runs": runs}, indent=1) + "\n")
    (out / "table.md").write_text(summary(runs) + "\n")


if __name__ == "__main__":
    main()
