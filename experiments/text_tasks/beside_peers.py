"""What a user of optimum gets of the same checkpoint by two commands, and ours, beside each other.

Quality is on the run's test examples by its metric, time in one round.

    python experiments/text_tasks/beside_peers.py --optimum optimum/bin --task text-classification \
        --bench 1x128,8x128 experiment=reuters_grain OVERRIDES

`--optimum`: bin of an environment with optimum-onnx 0.1 (transformers < 4.58). Its export is rounded once by
its own `--avx512_vnni`, as sentence-transformers does it, and once by onnxruntime's `quantize_dynamic`.
Prints a table in Markdown.
"""

import argparse
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from onnxruntime.quantization import QuantType, quantize_dynamic
from rich.console import Console

import compress
from compress.config.data import Split
from compress.config.prune import NoPrune
from compress.config.recover import NoRecover
from compress.evaluate import evaluate
from compress.metrics.quality import load_quality
from compress.pipeline import build, compare, score_dense
from compress.sources import cache_dir
from compress.stages.runner import StageRunner
from compress.stages.store import Store


def peers(checkpoint: Path, task: str, optimum: Path, out: Path) -> dict[str, Path]:
    """Folders of their files, each with a model.onnx."""

    def cli(*words: str | Path) -> None:
        subprocess.run([optimum / "optimum-cli", *words], check=True, stdout=sys.stderr)

    exported, plain, helped = (out / name for name in ("exported", "plain", "helped"))
    cli("export", "onnx", "--model", checkpoint, "--task", task, exported)
    plain.mkdir()
    quantize_dynamic(exported / "model.onnx", plain / "model.onnx", weight_type=QuantType.QInt8)
    cli("onnxruntime", "quantize", "--avx512_vnni", "--onnx_model", exported, "-o", helped)
    (helped / "model_quantized.onnx").rename(helped / "model.onnx")
    return {
        "optimum's export": exported,
        "quantize_dynamic of it": plain,
        "optimum avx512_vnni of it": helped,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="+")
    parser.add_argument("--optimum", type=Path, required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--bench", required=True, metavar="WORKLOADS")
    args = parser.parse_args()

    config = compress.load_config(*args.overrides)
    runner = StageRunner(Store(cache_dir() / "store"), Console(stderr=True), config.model.task)
    built = build(config, runner)
    scores, dense = score_dense(config, built, runner), built.variants[0]
    alone = build(replace(config, prune=NoPrune(), recover=NoRecover()), runner).variants[-1]
    rows, files = {}, {"dense": dense.graph.path}
    for variant in (*built.variants, replace(alone, name=f"{alone.name} alone")):
        rows[variant.name] = load_quality(compare(config, built, variant, scores, runner).path)
        files[variant.name] = variant.graph.path
    with TemporaryDirectory() as scratch:
        for name, folder in peers(built.dense.path, args.task, args.optimum, Path(scratch)).items():
            files[name], out = folder, Path(scratch, f"quality of {name}")
            out.mkdir()
            evaluate(
                config.evaluate, Split.test, None, folder, built.dense.path, dense.graph.path,
                built.dense.path, scores.path, built.splits.path, out,
            )  # fmt: skip
            rows[name] = load_quality(out)
        links = Path(scratch, "timed")
        for name, folder in files.items():
            (links / name).mkdir(parents=True)
            (links / name / "model.onnx").symlink_to((folder / "model.onnx").resolve())
        timed = compress.bench(
            *(links / name / "model.onnx" for name in files),
            overrides=[f"benchmark.workloads=[{args.bench}]", "benchmark.max_seconds=60"],
        )
        sizes = [sum(file.stat().st_size for file in folder.glob("model.onnx*")) for folder in files.values()]
    primary = rows["dense"].primary
    print(f"| | size, MB | {primary} | drop | speed-up, {args.bench} |")
    print("|---|--:|--:|--:|--:|")
    for (name, row), size, label in zip(
        rows.items(), sizes, [timed["baseline"], *timed["speedup"]], strict=True
    ):
        drop = _interval(vars(row.drop_from_dense[primary]), 4)
        speed = "; ".join(_interval(each) for each in timed["speedup"].get(label, {}).values())
        print(f"| {name} | {size / 1e6:.1f} | {row.quality[primary].value:.4f} | {drop} | {speed} |")


def _interval(of: dict[str, float], digits: int = 2) -> str:
    return "{:.{n}f} [{:.{n}f}, {:.{n}f}]".format(*(of[part] for part in ("value", "low", "high")), n=digits)


if __name__ == "__main__":
    main()
