"""llama.cpp, OpenVINO GenAI and our ONNX files on the same weights: a prompt, then tokens after it, in turns.

python experiments/smollm2/peers.py --gguf MODEL.gguf --tokens ARTIFACT --llama llama/bin/python \
    --openvino ov/bin/python --onnx int4=DIR --genai int4_genai=DIR ... [--seconds 200]

Each model lives in a process of its own and waits while another computes. A round is the prompt (442 tokens,
the same for all) and 32 greedy tokens after it in every model, in an order that changes; the next round's
begins with another token, or OpenVINO would take it from its cache. Ratios are of the same round, intervals
from resampled rounds. All compute the logits of a prompt's last token only, keep their cache in place and
have the same number of threads. OpenVINO tells its times itself (`perf_metrics`).

Neither peer is a dependency. `pip install openvino-genai` in one environment, and in another llama.cpp, built
once, 9 minutes on 2 cores; without these flags its native build crashes at the first decode on CPUs with AMX
under some hypervisors:

CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON -DGGML_AVX512=ON \
    -DGGML_AVX512_VNNI=ON -DGGML_AVX512_VBMI=ON" llama/bin/pip install llama-cpp-python==0.3.36

The GGUF has Q4_1: 5.0 bits a weight, embedding and head included, where our blocks of 64 with 4-bit zero
points and float32 scales have 4.6, embedding and head in 8.
"""

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROMPT, TOKENS = 442, 32
ROOT = Path(__file__).resolve().parents[2]
TEXT = "The history of the city begins with a market by the river, where merchants from the hills met. " * 40
Step = Callable[[list[int]], Any]  # tokens after those before -> logits of the last one


def times(restart: Callable[[], Step], prompt: list[int]) -> tuple[float, float]:
    """Milliseconds of the prompt and of a token after it, each until the next token is chosen."""
    step, begin = restart(), time.perf_counter()
    token = int(step(prompt).argmax())
    first = time.perf_counter()
    for _ in range(TOKENS):
        token = int(step([token]).argmax())
    return (first - begin) * 1e3, (time.perf_counter() - first) * 1e3 / TOKENS


def llama(path: str, threads: int, prompt: list[int]) -> Callable[[], tuple[float, float]]:
    import numpy as np
    from llama_cpp import Llama

    sizes = {"n_ctx": 512, "n_batch": 512, "n_ubatch": 512}
    model = Llama(path, n_threads=threads, n_threads_batch=threads, verbose=False, **sizes)

    def step(tokens: list[int]) -> Any:
        model.eval(tokens)
        return np.ctypeslib.as_array(model._ctx.get_logits(), (model.n_vocab(),))

    def restart() -> Step:
        model.reset()
        return step

    return lambda: times(restart, prompt)


def openvino(path: str, threads: int, prompt: list[int]) -> Callable[[], tuple[float, float]]:
    import numpy as np
    import openvino as ov
    import openvino_genai as genai

    model = genai.LLMPipeline(path, "CPU", INFERENCE_NUM_THREADS=threads)

    def run() -> tuple[float, float]:
        ids = np.array([prompt], np.int64)
        given = genai.TokenizedInputs(ov.Tensor(ids), ov.Tensor(np.ones_like(ids)))
        found = model.generate(given, max_new_tokens=TOKENS + 1, ignore_eos=True, do_sample=False)
        return found.perf_metrics.get_ttft().mean, found.perf_metrics.get_tpot().mean

    return run


def onnx(path: str, threads: int, prompt: list[int]) -> Callable[[], tuple[float, float]]:
    sys.path.insert(0, str(ROOT))
    import numpy as np

    from compress.graph.decoder import Decoder

    decoder = Decoder(Path(path) / "model.onnx", threads, capacity=512)

    def restart() -> Step:
        decoder.rewind(0)
        return lambda tokens: decoder.run(np.array(tokens), last=True)[-1]

    return lambda: times(restart, prompt)


def genai(path: str, threads: int, prompt: list[int]) -> Callable[[], tuple[float, float]]:
    import onnxruntime_genai as og

    config = og.Config(path)
    options = {"intra_op_num_threads": threads}
    config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
    model = og.Model(config)
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=512, min_length=512, do_sample=False)

    def run() -> tuple[float, float]:
        generator, begin = og.Generator(model, params), time.perf_counter()
        generator.append_tokens(prompt)
        generator.generate_next_token()
        first = time.perf_counter()
        for _ in range(TOKENS):
            generator.generate_next_token()
        return (first - begin) * 1e3, (time.perf_counter() - first) * 1e3 / TOKENS

    return run


KINDS = {each.__name__: each for each in (llama, openvino, onnx, genai)}


def work() -> None:
    """One model in this process: a line with the times for every line that comes in."""
    kind, path, threads, *prompt = sys.argv[2:]
    ids = [int(token) for token in prompt]
    run = KINDS[kind](path, int(threads), ids)
    for line in sys.stdin:
        ids[0] = int(line)
        print("times", *run(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--tokens", type=Path, required=True, help="folder with a tokenizer.json")
    parser.add_argument("--llama", metavar="PYTHON")
    parser.add_argument("--openvino", metavar="PYTHON")
    parser.add_argument("--onnx", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--genai", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=200.0)
    args = parser.parse_args()

    import numpy as np
    from tokenizers import Tokenizer

    prompt = Tokenizer.from_file(str(args.tokens / "tokenizer.json")).encode(TEXT).ids[:PROMPT]
    models = {name: (getattr(args, name), name, args.gguf) for name in ("llama", "openvino")}
    for kind in ("onnx", "genai"):
        models |= {
            name: (sys.executable, kind, path)
            for name, path in (each.split("=", 1) for each in getattr(args, kind))
        }
    running = {
        name: subprocess.Popen(
            [python, __file__, "--worker", kind, path, str(args.threads), *map(str, prompt)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name, (python, kind, path) in models.items()
        if python
    }
    try:
        rounds: list[dict[str, tuple[float, float]]] = []
        end = time.monotonic() + args.seconds
        while time.monotonic() < end or len(rounds) < 3:
            names, first = random.sample(list(running), len(running)), 1000 + len(rounds)
            rounds.append({name: ask(running[name], first) for name in names})
    finally:
        for each in running.values():
            each.kill()
            each.wait()
    found = {name: np.array([each[name] for each in rounds[1:]]) for name in running}
    picked = np.random.default_rng(0).integers(0, len(rounds) - 1, (2000, len(rounds) - 1))
    for index, what in enumerate(("prefill", "decode")):
        print(
            f"\n| {what}, {len(rounds) - 1} rounds | ms | tokens/s | over " + " | over ".join(running) + " |"
        )
        print("|---" * (3 + len(running)) + "|")
        for name, own in found.items():
            ms = np.median(own[:, index])
            cells = [f"{ms:.2f}", f"{(PROMPT if what == 'prefill' else 1) * 1e3 / ms:.1f}"]
            for other in found.values():
                ratios = other[:, index] / own[:, index]
                low, high = np.quantile(np.median(ratios[picked], axis=1), [0.025, 0.975])
                cells.append(f"{np.median(ratios):.2f} [{low:.2f}, {high:.2f}]")
            print(f"| {name} | " + " | ".join(cells) + " |")


def ask(process: "subprocess.Popen[str]", first: int) -> tuple[float, float]:
    assert process.stdin
    assert process.stdout
    print(first, file=process.stdin, flush=True)
    for line in process.stdout:
        if line.startswith("times "):  # the peers print, too
            prefill, decode = map(float, line.split()[1:])
            return prefill, decode
    raise SystemExit(f"no answer from {process.args!r}")


if __name__ == "__main__":
    work() if sys.argv[1:2] == ["--worker"] else main()
