"""Scores of what a target computes: the same as here where it computes the same, others where it does not."""

import pytest

from compress.config.data import Split
from compress.config.evaluate import ImageClassification, LanguageModeling, SentenceSimilarity
from compress.config.target import LocalTarget
from compress.errors import BenchmarkError
from compress.evaluate import evaluate, on_target, score
from compress.graph import named_graphs
from compress.metrics.quality import load_quality
from compress.targets import outputs as outputs_module
from compress.tasks.language_modeling import metrics as language
from tests.benchmark.faults import Planted, another, node_of, with_attributes

TEXTS = SentenceSimilarity(primary="cosine", on_target=True)
LANGUAGE = LanguageModeling(context=32, stride=32, tokens=400, prompts=1, prompt_tokens=4, new_tokens=3)


@pytest.fixture(params=["encoder", "images", "language", "language, plain"])
def case(request):
    """Evaluation, folders of graph, checkpoint and splits; operator, its number and a wrong kernel of it."""
    get = request.getfixturevalue
    if request.param == "encoder":
        fault = ("Gelu", with_attributes(approximate="tanh"))
        return TEXTS, get("graphs")("bert"), get("checkpoints")["bert"], get("splits_folder"), fault
    if request.param == "images":
        fault = ("Relu", another("LeakyRelu", alpha=0.5))
        images = get("image_graphs")["resnet"], get("image_checkpoints")["resnet"]
        return ImageClassification(), *images, get("image_splits_folder"), fault
    fused = request.param == "language"
    graph, checkpoint = get("language_graphs")("llama", fused), get("language_checkpoints")["llama"]
    return LANGUAGE, graph, checkpoint, get("splits_folder"), ("Sigmoid", another("HardSigmoid"))


def test_what_a_target_computes_is_scored(case, tmp_path, monkeypatch, request):
    monkeypatch.setattr(outputs_module, "BATCHES", 20)
    monkeypatch.setattr(language, "LOGITS_BYTES", 100_000)  # three windows
    config, graph, checkpoint, splits, (op_type, change) = case
    plain = graph if config is not LANGUAGE else request.getfixturevalue("language_graphs")("llama", False)
    (tmp_path / "scores").mkdir()
    score(config, Split.test, None, plain, checkpoint, splits, tmp_path / "scores")
    asked = (Split.test, None, graph, checkpoint, plain, checkpoint, tmp_path / "scores", splits)

    def quality(name, there=None):
        (tmp_path / name).mkdir()
        if there is None:
            evaluate(config, *asked, tmp_path / name)
        else:
            monkeypatch.setattr(on_target, "open_target", lambda _: there)
            on_target.evaluate(config, LocalTarget(), *asked, tmp_path / name)
        found = load_quality(tmp_path / name)
        return {name: each.value for name, each in (found.quality | found.fidelity).items()}

    here, right = quality("here"), Planted("no such node", change)
    assert quality("right", right) == pytest.approx(here, abs=1e-5)
    assert right.jobs > (config.primary != "accuracy")  # all images are one batch
    wrong = quality("wrong", Planted(node_of(named_graphs(graph), op_type, 0), change))
    fidelity = "kl" if "kl" in here else "cosine"
    assert abs(wrong[fidelity] - here[fidelity]) > 1e-9
    assert wrong != pytest.approx(here, abs=1e-9)


def test_a_target_that_cannot_run_it_is_told(tmp_path, graphs, checkpoints, splits_folder, monkeypatch):
    """In a process of its own, as a run does it."""
    (tmp_path / "scores").mkdir()
    (tmp_path / "out").mkdir()
    graph = graphs("bert")
    score(TEXTS, Split.test, 20, graph, checkpoints["bert"], splits_folder, tmp_path / "scores")
    asked = (Split.test, 20, graph, checkpoints["bert"], graph, checkpoints["bert"], tmp_path / "scores")
    on_target.evaluate(TEXTS, LocalTarget(threads=1), *asked, splits_folder, tmp_path / "out")
    assert load_quality(tmp_path / "out").fidelity["cosine"].value == pytest.approx(1, abs=1e-6)
    monkeypatch.setattr(outputs_module, "PATIENCE_SECONDS", 0.001)
    with pytest.raises(BenchmarkError, match="hung"):
        on_target.evaluate(TEXTS, LocalTarget(threads=1), *asked, splits_folder, tmp_path / "out")
