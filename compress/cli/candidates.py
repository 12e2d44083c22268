"""The candidates of a search: built by the stages of a run, measured on select."""

from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from compress import pipeline
from compress.benchmark.speed import load_speed
from compress.config.data import Split
from compress.config.recover import NoRecover
from compress.config.run import RunConfig
from compress.errors import BenchmarkError
from compress.graph import graph_files
from compress.metrics.quality import load_quality
from compress.models.summary import read_summary
from compress.schema.report import Report
from compress.search.space import Measured, canonical, geometric_mean, relative
from compress.stages.runner import StageRunner

GLANCE_SAMPLES = 100  # sentences, and pairs of each set
GLANCE_SECONDS = 10.0


@dataclass
class Workbench:
    """Candidates that are really built and measured; what they share is made once."""

    runner: StageRunner
    _widths: dict[str, tuple[int, ...]] | None = None  # of the dense model

    def canonical(self, config: RunConfig) -> RunConfig:
        if self._widths is None:
            self._widths = read_summary(pipeline.load(config, self._quiet()).path).widths
        return canonical(config, self._widths)

    def glance(self, config: RunConfig) -> Measured:
        short = replace(config.benchmark, max_seconds=min(GLANCE_SECONDS, config.benchmark.max_seconds))
        return self._measured(replace(config, recover=NoRecover(), benchmark=short), GLANCE_SAMPLES)

    def measure(self, config: RunConfig) -> Measured:
        return self._measured(config, None)

    def confirm(self, config: RunConfig, folder: Path, command: str) -> Report:
        report = pipeline.run(config, folder, replace(self.runner, stages=[]), command)
        assert report is not None  # it is no dry run
        return report

    def _measured(self, config: RunConfig, samples: int | None) -> Measured:
        runner = self._quiet()
        built = pipeline.build(config, runner)
        dense, small = built.variants[0], built.variants[-1]
        if dense.not_timed:
            raise BenchmarkError(
                "a search times its candidates beside the dense model, which nobody times here",
                found=dense.not_timed,
                next="compress run with a few settings, -m, and compare their times",
            )
        scores = pipeline.score_dense(config, built, runner, Split.select, samples)
        evaluated = pipeline.compare(config, built, small, scores, runner, Split.select, samples)
        pair = (dense,) if small is dense else (dense, small)
        speed = load_speed(pipeline.measure_speed(config, built, pair, runner).path)
        quality = load_quality(evaluated.path)
        metric = quality.primary
        score = quality.quality.get(metric) or quality.fidelity[metric]
        drop = quality.drop_from_dense[metric]
        dense_score = score.value + drop.value if score.higher_is_better else score.value - drop.value
        speedups = speed.speedup.get(small.name, {}).values()
        return Measured(
            metric=metric,
            drop=relative(drop, dense_score),
            speedup=geometric_mean(speedups),
            slowest=min((speedup.ci95[0] for speedup in speedups), default=1.0),
            size_mb=sum(path.stat().st_size for path in graph_files(small.graph.path)) / 1e6,
            memory_mb=speed.peak_memory_bytes[small.name] / 1e6,
        )

    def _quiet(self) -> StageRunner:
        return replace(self.runner, console=Console(quiet=True), stages=[])
