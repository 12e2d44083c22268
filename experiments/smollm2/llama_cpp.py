"""llama.cpp and our ONNX files on the same weights, timed against each other: prefill and decode.

python experiments/smollm2/llama_cpp.py --llama-python llama/bin/python --gguf MODEL.gguf \
    --tokens outputs/smollm2/latest/artifact --onnx int4=DIR --onnx int8=DIR [--seconds 300] [--out FILE]

llama-cpp-python lives in an environment of its own and is no dependency. It is built once, 9 minutes on 2
cores; without these flags its native build crashes at the first decode on CPUs with AMX under some
hypervisors:

python -m venv llama
CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON -DGGML_AVX512=ON \
    -DGGML_AVX512_VNNI=ON -DGGML_AVX512_VBMI=ON" llama/bin/pip install llama-cpp-python==0.3.36

How it is fair: our benchmark's processes, blocks, rounds and intervals for both; the same tokens, threads and
position (442 tokens cached, one new); both keep the cache in place and compute the logits of a prompt's last
token only. The model's file is the GGUF itself, so its bits are Q4_1's: 5.0 a weight, embedding and head
included, where blocks of 64 with 4-bit zero points and float32 scales have 4.6, embedding and head in 8 bits.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PROMPT = 442
ROOT = Path(__file__).resolve().parents[2]
TEXT = "The history of the city begins with a market by the river, where merchants from the hills met. " * 40


def worker() -> None:
    """One model of llama.cpp in one process, at the runner's command."""
    import llama_cpp
    import numpy

    sys.path.insert(0, str(ROOT))  # the environment of llama.cpp has nothing of ours
    from compress.runner import counters
    from compress.runner import worker as runner

    class Model(runner.Model):
        """Warm-up, blocks and memory are those of every model; a call is llama.cpp's."""

        def __init__(self, request: dict[str, Any]) -> None:
            self.workloads, self.tokens, threads = request["workloads"], {}, request["threads"]
            before, start = counters.memory(), time.perf_counter()
            self.llama = llama_cpp.Llama(
                request["path"],
                n_ctx=512,
                n_batch=512,
                n_ubatch=512,
                n_threads=threads,
                n_threads_batch=threads,
                verbose=False,
            )
            self.facts = {
                "load_ms": (time.perf_counter() - start) * 1e3,
                "rss_before_bytes": before["rss_bytes"],
                "providers": [f"llama.cpp of llama-cpp-python {llama_cpp.__version__}"],
                "threads": threads,
                **dict.fromkeys(("optimization_level", "arena", "memory_pattern"), "its own"),
                "affinity": counters.affinity(),
            }

        inputs = prepare = compute = None  # type: ignore[assignment]  # a call is not made of an ONNX file

        def first_run(self, workload: str) -> dict[str, float]:
            with numpy.load(self.workloads[workload]) as arrays:
                ids, mask = arrays["input_ids"][0].tolist(), arrays["attention_mask"]
            past = mask.shape[1] - len(ids)
            self.tokens[workload] = (past, ids)
            self.llama.reset()
            if past:
                self.llama.eval((ids * past)[:past])
            return {workload: self.calls(workload, 1)[0]}

        def calls(self, workload: str, count: int) -> list[float]:
            past, ids = self.tokens[workload]
            ns = []
            for _ in range(count):
                self.llama.n_tokens = past  # what is cached behind it is dropped
                start = time.perf_counter_ns()
                self.llama.eval(ids)
                self.llama._ctx.get_logits()  # waits for them
                ns.append(time.perf_counter_ns() - start)
            return [round(each / 1e6, 6) for each in ns]

    runner.work(Model)


def feeds(checkpoint: Path) -> dict[str, dict[str, Any]]:
    """Prefill and decode as our benchmark feeds them."""
    import numpy as np
    from tokenizers import Tokenizer

    config = json.loads((checkpoint / "config.json").read_text())
    heads = config.get("num_key_value_heads") or config["num_attention_heads"]
    size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    ids = Tokenizer.from_file(str(checkpoint / "tokenizer.json")).encode(TEXT).ids

    def of(tokens: int, past: int) -> dict[str, Any]:
        cache = np.zeros((1, heads, past, size), np.float32)
        parts = [f"{i}.{kind}" for i in range(config["num_hidden_layers"]) for kind in ("key", "value")]
        return {
            "input_ids": np.array([ids[:tokens]], np.int64),
            "attention_mask": np.ones((1, past + tokens), np.int64),
            "position_ids": np.arange(past, past + tokens)[None],
            **{f"past_key_values.{part}": cache for part in parts},
        }

    return {f"1x{PROMPT}": of(PROMPT, 0), f"1x1+{PROMPT}": of(1, PROMPT)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--llama-python", type=Path, required=True)
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--tokens", type=Path, required=True, help="folder with config.json, tokenizer.json")
    parser.add_argument("--onnx", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()

    from compress.benchmark import timing
    from compress.benchmark.caches import items
    from compress.benchmark.speed import summarize
    from compress.config.benchmark import BenchmarkConfig
    from compress.report.format import speed_word
    from compress.runner.collect import collect
    from compress.runner.machine import machine_facts
    from compress.runner.with_onnxruntime import runtime_facts

    models = {
        name: Path(folder) / "model.onnx" for name, _, folder in (word.partition("=") for word in args.onnx)
    }
    inputs = feeds(args.tokens)
    with tempfile.TemporaryDirectory() as folder:
        config = BenchmarkConfig(max_seconds=args.seconds)
        spec, _ = timing.timing_job(config, models, inputs, Path(folder), {})
        spec["threads"] = args.threads
        spec["models"] = {"llama.cpp": str(args.gguf.resolve()), **spec["models"]}
        command = [os.path.abspath(args.llama_python), "-P", __file__, "--worker"]
        spec["with"] = {"llama.cpp": {"command": command, "threads": args.threads}}
        spec |= {"baseline": "llama.cpp"}
        samples = collect(spec)
    if args.out:
        args.out.write_text(json.dumps(samples))
    counts = {name: items(each) for name, each in inputs.items()}
    speed = summarize(samples, counts, machine_facts(runtime_facts()))
    print("| model | workload | tokens/s | over llama.cpp [95 %] | |\n|---|---|---|---|---|")
    for model, rates in speed.throughput_per_second.items():
        for workload, rate in rates.items():
            ratio = speed.speedup.get(model, {}).get(workload)
            low, high = ratio.ci95 if ratio else (1.0, 1.0)
            said = (
                f"{ratio.value:.2f} [{low:.2f}, {high:.2f}] | {speed_word(ratio)}"
                if ratio
                else "- | baseline"
            )
            print(f"| {model} | {workload} | {rate:.1f} | {said} |")
    print("\n".join(f"noise: {reason}" for reason in speed.noise) or "noise: none seen")


if __name__ == "__main__":
    worker() if sys.argv[1:] == ["--worker"] else main()
