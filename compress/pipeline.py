"""The whole road, on one screen: a model in, a measured and shippable ONNX file out."""

from dataclasses import replace
from pathlib import Path

from compress import families, sources
from compress.assemble import Rung, assemble, ship
from compress.benchmark import benchmark, cpu_facts
from compress.config import RunConfig
from compress.data import input_digests, open_splits
from compress.evaluate import evaluate
from compress.export import export
from compress.prune import prune
from compress.quantize import quantize
from compress.recover import recover
from compress.report import write_reports
from compress.result import Report
from compress.road import Road


def run(config: RunConfig, folder: Path, road: Road) -> Report | None:
    """Walk the road; results appear in `folder`. Returns None on a dry run.

    Every number in the report is measured on ONNX files by onnxruntime, not on their torch ancestors.
    Raises CompressError; what earlier runs left stays as it was, and finished stages are kept.
    """
    plain = replace(config.export, fuse=False)  # the baseline: what everybody exports
    flags = tuple(config.target.cpu_flags or cpu_facts()["flags"])

    dense = road.stage("load", families.import_model, config.model,
                       identity=sources.identity(config.model.source, config.model.sha256))
    splits = road.stage("split", open_splits, config.data, identity=input_digests(config.data))
    baseline = road.stage("export", export, plain, dense, splits)
    pruned = road.stage("prune", prune, config.prune, dense, splits)
    student = road.stage("recover", recover, config.recover, pruned, dense, splits, scratch=True)
    graph = road.stage("export", export, config.export, student, splits)
    small = road.stage("quantize", quantize, config.quantize, graph, student, splits, extra=(flags,))

    ladder = [
        Rung("dense", "export", baseline, dense),
        Rung("fused" if student is dense else "pruned", "export", graph, student),
        *([Rung("int8", "quantize", small, student)] if small is not graph else []),
    ]
    quality = [
        road.stage("evaluate", evaluate, config.evaluate, rung.graph, baseline, dense, splits)
        for rung in ladder
    ]
    speed = road.stage("benchmark", benchmark, config.target, dense, splits, *[rung.graph for rung in ladder],
                       extra=(tuple(rung.name for rung in ladder),), identity=cpu_facts())
    if road.dry_run:
        return None

    report = assemble(config, ladder, quality, speed, splits, road.stages)
    ship(report, ladder, folder / "artifact")
    write_reports(report, folder)
    return report
