"""Dynamic int8 of onnxruntime, of optimum's helper, and ours, beside each other: quality on test and time.

    python experiments/text_tasks/beside_peers.py --optimum-python optimum/bin/python \
        --bench 1x128,8x128 --seconds 60 experiment=reuters_grain OVERRIDES

`--optimum-python`: of an environment with optimum-onnx 0.1 (transformers < 4.58), whose `avx512_vnni` is what
sentence-transformers' `export_dynamic_quantized_onnx_model` calls. Both peers round our dense ONNX file,
and are judged by the metrics and the test examples of the run. Prints a table in Markdown.
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

OPTIMUM = """
import sys
from optimum.onnxruntime import AutoQuantizationConfig, ORTQuantizer
quantizer = ORTQuantizer.from_pretrained(sys.argv[1], file_name="model.onnx")
config = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=False)
quantizer.quantize(save_dir=sys.argv[2], quantization_config=config, file_suffix="")
"""


def peers(dense: Path, checkpoint: Path, out: Path, optimum_python: str | None) -> dict[str, Path]:
    """Folders of the peers' files, made of the dense one."""
    plain = out / "onnxruntime"
    plain.mkdir()
    quantize_dynamic(dense / "model.onnx", plain / "model.onnx", weight_type=QuantType.QInt8)
    made = {"quantize_dynamic": plain}
    if optimum_python:
        given, theirs = out / "given", out / "optimum"
        given.mkdir()
        for file in (dense / "model.onnx", checkpoint / "config.json"):
            (given / file.name).symlink_to(file.resolve())
        subprocess.run([optimum_python, "-c", OPTIMUM, given, theirs], check=True, stdout=sys.stderr)
        for file in theirs.glob("*.json"):
            file.unlink()
        made["optimum avx512_vnni"] = theirs
    return made


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="+")
    parser.add_argument("--optimum-python")
    parser.add_argument("--bench", required=True, metavar="WORKLOADS")
    parser.add_argument("--seconds", type=float, default=60.0)
    args = parser.parse_args()

    config = compress.load_config(*args.overrides)
    runner = StageRunner(Store(cache_dir() / "store"), Console(stderr=True), config.model.task)
    built = build(config, runner)
    scores, dense = score_dense(config, built, runner), built.variants[0]
    rows, files = {}, {"dense": dense.graph.path}
    with TemporaryDirectory() as scratch:
        alone = build(replace(config, prune=NoPrune(), recover=NoRecover()), runner).variants[-1]
        for variant in (*built.variants, replace(alone, name=f"{alone.name} alone")):
            rows[variant.name] = load_quality(compare(config, built, variant, scores, runner).path)
            files[variant.name] = variant.graph.path
        for name, folder in peers(
            dense.graph.path, built.dense.path, Path(scratch), args.optimum_python
        ).items():
            files[name], out = folder, Path(scratch, f"quality of {name}")
            out.mkdir()
            evaluate(config.evaluate, Split.test, None, folder, built.dense.path, dense.graph.path,
                     built.dense.path, scores.path, built.splits.path, out)  # fmt: skip
            rows[name] = load_quality(out)
        links = Path(scratch, "timed")
        for name, folder in files.items():
            (links / name).mkdir(parents=True)
            (links / name / "model.onnx").symlink_to((folder / "model.onnx").resolve())
        overrides = [f"benchmark.workloads=[{args.bench}]", f"benchmark.max_seconds={args.seconds}"]
        timed = compress.bench(*(links / name / "model.onnx" for name in files), overrides=overrides)
    primary = rows["dense"].primary
    print(f"| | size, MB | {primary} | drop | speed-up, {args.bench} |")
    print("|---|--:|--:|--:|--:|")
    for (name, folder), label in zip(files.items(), [timed["baseline"], *timed["speedup"]], strict=True):
        size = sum(file.stat().st_size for file in folder.glob("model.onnx*")) / 1e6
        score, drop = rows[name].quality[primary], rows[name].drop_from_dense[primary]
        speed = "; ".join(
            f"{x['value']:.2f} [{x['low']:.2f}, {x['high']:.2f}]"
            for x in timed["speedup"].get(label, {}).values()
        )
        change = f"{drop.value:.4f} [{drop.low:.4f}, {drop.high:.4f}]"
        print(f"| {name} | {size:.1f} | {score.value:.4f} | {change} | {speed} |")


if __name__ == "__main__":
    main()
