"""What a user of optimum gets of the same checkpoint by two commands, and ours, beside each other.

    python experiments/text_tasks/beside_peers.py --optimum optimum/bin --out files \
        --task text-classification experiment=reuters_grain OVERRIDES
    compress bench files/*/model.onnx benchmark.workloads=[1x128,8x128]

`--optimum`: bin of an environment with optimum-onnx 0.1 (transformers < 4.58). Its export is rounded once by
its own `--avx512_vnni`, as sentence-transformers does it, and once by onnxruntime's `quantize_dynamic`.
Prints quality on the run's test examples by its own metric, in Markdown, and leaves the graphs to be timed.
"""

import argparse
import shutil
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
from compress.metrics.quality import Quality, load_quality
from compress.pipeline import build, compare, score_dense
from compress.sources import cache_dir
from compress.stages.runner import StageRunner
from compress.stages.store import Store


def peers(checkpoint: Path, task: str, optimum: Path, out: Path) -> dict[str, Path]:
    """Folders of their graphs."""

    def cli(*words: str | Path) -> None:
        subprocess.run([optimum / "optimum-cli", *words], check=True, stdout=sys.stderr)

    exported, plain, helped = (out / f"9_{name}" for name in ("export", "quantize_dynamic", "avx512_vnni"))
    cli("export", "onnx", "--model", checkpoint, "--task", task, exported)
    plain.mkdir()
    quantize_dynamic(exported / "model.onnx", plain / "model.onnx", weight_type=QuantType.QInt8)
    cli("onnxruntime", "quantize", "--avx512_vnni", "--onnx_model", exported, "-o", helped)
    (helped / "model_quantized.onnx").rename(helped / "model.onnx")
    for file in helped.glob("*.json"):
        file.unlink()
    return {"optimum's export, quantize_dynamic": plain, "optimum's export, avx512_vnni": helped}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="+")
    parser.add_argument("--optimum", type=Path, required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--out", type=Path, required=True, help="a folder that does not exist")
    args = parser.parse_args()
    args.out.mkdir(parents=True)

    config = compress.load_config(*args.overrides)
    runner = StageRunner(Store(cache_dir() / "store"), Console(stderr=True), config.model.task)
    built = build(config, runner)
    scores, dense = score_dense(config, built, runner), built.variants[0]
    alone = build(replace(config, prune=NoPrune(), recover=NoRecover()), runner).variants[-1]
    found: dict[str, tuple[Path, Quality]] = {}
    for number, variant in enumerate([*built.variants, replace(alone, name=f"{alone.name} alone")]):
        folder = args.out / f"{number}_{variant.name.replace(' ', '_')}"
        shutil.copytree(variant.graph.path, folder)
        quality = load_quality(compare(config, built, variant, scores, runner).path)
        found[variant.name] = folder, quality
    for name, folder in peers(built.dense.path, args.task, args.optimum, args.out).items():
        with TemporaryDirectory() as scratch:
            evaluate(
                config.evaluate, Split.test, None, folder, built.dense.path, dense.graph.path,
                built.dense.path, scores.path, built.splits.path, Path(scratch),
            )  # fmt: skip
            found[name] = folder, load_quality(Path(scratch))
    print(f"| | size, MB | {found['dense'][1].primary} | drop |\n|---|--:|--:|--:|")
    for name, (folder, quality) in found.items():
        size = sum(file.stat().st_size for file in folder.glob("model.onnx*")) / 1e6
        drop = quality.drop_from_dense[quality.primary]
        told = "{:.4f} [{:.4f}, {:.4f}]".format(drop.value, *drop.ci95)
        print(f"| {name} | {size:.1f} | {quality.quality[quality.primary].value:.4f} | {told} |")


if __name__ == "__main__":
    main()
