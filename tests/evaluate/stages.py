"""An evaluation as a run does it: the dense model scored once, another compared with what was stored."""

from compress import evaluate as stages
from compress.config.data import Split


def evaluate(config, graph, baseline, student, checkpoint, splits, out, split=Split.test, samples=None):
    scores = out / "dense"
    scores.mkdir(parents=True, exist_ok=True)
    stages.score(config, split, samples, baseline, checkpoint, splits, scores)
    stages.evaluate(config, split, samples, graph, student, baseline, checkpoint, scores, splits, out)
