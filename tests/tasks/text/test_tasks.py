"""Every task of text encoders with a head, from a published folder to a report."""

import pytest

from compress.artifact import verify
from compress.schema.report import Report
from tests.heads import TASKS


@pytest.fixture(scope="session")
def headed(headed_published, headed_records):
    """Task -> the overrides of a run on a tiny model of it, published and with data in folders."""

    def overrides(task):
        return [
            f"name={task}",
            f"model={TASKS[task][0]}",
            f"model.source=path:{headed_published[task]}",
            "data=records",
            f"data.train_set.source=path:{headed_records[task]}/data.jsonl",
            "data.calibration=16",
            "data.select=16",
            "data.test=24",
            "evaluate.resamples=100",
            "prune=transformer",
            "prune.keep.ffn=0.5",
            "prune.round_to=8",
            "recover=distill",
            "recover.steps=6",
            "recover.evaluate_every=3",
            "recover.label_weight=0.5",
            "benchmark.workloads=[1x16,2x16]",
            "benchmark.max_seconds=1",
            "target.threads=1",
        ]

    return overrides


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_a_run(task, headed, compress, tmp_path):
    done = compress("run", *headed(task))
    assert done.returncode == 0, done.stderr
    [folder] = tmp_path.glob(f"outputs/{task}/2*")
    report = Report.load(folder / "report.json")
    assert [variant.name for variant in report.variants] == ["dense", "pruned", "int8"]
    assert report.primary_metric in {**report.variants[2].quality, **report.variants[2].fidelity}
    verify(folder / "artifact")
