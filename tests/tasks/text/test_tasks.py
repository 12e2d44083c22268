"""Every task of text encoders with a head, from a published folder to a report."""

import pytest

from compress.artifact import verify
from compress.schema.report import Report
from tests.heads import TASKS

PRIMARY = {
    "text_classification": "accuracy",
    "reranking": "ndcg@10",
    "token_classification": "entity_f1",
    "question_answering": "f1",
}
FIDELITY = {
    "text_classification": {"agreement", "kl"},
    "reranking": {"rank_correlation", "score_difference"},
    "token_classification": {"agreement", "kl"},
    "question_answering": {"agreement", "score_difference"},
}


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
            f"recover.balanced={task in ('text_classification', 'token_classification')}",
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
    assert report.primary_metric == PRIMARY[task]
    texts = 24 * (6 if task == "reranking" else 1)
    cut = report.splits["test"].cut
    assert (cut.texts, cut.cut, cut.unread, cut.words > 0) == (texts, 0, 0, task == "token_classification")
    for variant in report.variants:
        assert {report.primary_metric, *FIDELITY[task]} <= {*variant.quality, *variant.fidelity}
        assert variant.drop_from_dense.keys() == {*variant.quality, *variant.fidelity}
        details = variant.text or variant.classification
        assert details is not None
        assert variant is not report.variants[0] or (details.lost, details.gained) == (0, 0)
    assert (report.variants[2].text or report.variants[2].classification).changed
    verify(folder / "artifact")
    for page in ("report.md", "artifact/README.md"):
        assert report.primary_metric in (folder / page).read_text()
