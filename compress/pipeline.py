"""The whole road, on one screen: a model in, a measured and shippable ONNX file out."""

from pathlib import Path

from compress import families
from compress.assemble import Rung, assemble, ship
from compress.benchmark import benchmark, cpu_facts, cpu_flags
from compress.config import RunConfig
from compress.data import input_digests, open_splits
from compress.evaluate import evaluate
from compress.export import export, plain
from compress.prune import prune
from compress.quantize import quantize
from compress.recover import recover
from compress.report import write_reports
from compress.result import Report
from compress.road import Road


def run(config: RunConfig, folder: Path, road: Road, command: str = "") -> Report | None:
    """Walk the road; results appear in `folder`. Returns None on a dry run.

    `command` is what started it, for the report.

    Every number in the report is measured on ONNX files by onnxruntime, not on their torch ancestors.
    Raises CompressError; what earlier runs left stays as it was, and finished stages are kept.
    """
    dense = road.stage(
        "load",
        families.import_model,
        config.model,
        identity=families.identity(config.model),
    )
    splits = road.stage("split", open_splits, config.data, identity=input_digests(config.data))
    baseline = road.stage("export", export, plain(config.export), dense, splits)
    pruned = road.stage("prune", prune, config.prune, dense, splits)
    student = road.stage("recover", recover, config.recover, pruned, dense, splits, scratch=True)
    graph = road.stage("export", export, config.export, student, splits)
    small = road.stage(
        "quantize", quantize, config.quantize, graph, student, splits, extra=(cpu_flags(config.target),)
    )

    name = "fused" if student is dense else "recovered" if pruned is dense else "pruned"
    ladder = [Rung("dense", "export", baseline, dense)]
    if graph.digest != baseline.digest:
        ladder.append(Rung(name, "export", graph, student))
    if small is not graph:
        ladder.append(Rung("int8", "quantize", small, student))
    quality = [
        road.stage("evaluate", evaluate, config.evaluate, rung.graph, baseline, dense, splits)
        for rung in ladder
    ]
    speed = road.stage(
        "benchmark",
        benchmark,
        config.target,
        dense,
        splits,
        *[rung.graph for rung in ladder],
        extra=(tuple(rung.name for rung in ladder),),
        identity=cpu_facts(),
        alone=True,
    )
    if road.dry_run:
        return None

    report = assemble(config, ladder, quality, speed, splits, pruned, road.stages, command)
    ship(report, ladder, folder / "artifact")
    write_reports(report, folder)
    return report
