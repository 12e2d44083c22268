import json

import numpy as np
import pytest

from compress.benchmark import timing
from compress.benchmark.as_shipped import load_card_times, time_card
from compress.config.benchmark import BenchmarkConfig
from compress.config.target import BrowserTarget, LocalTarget, NodeTarget
from compress.errors import BenchmarkError
from compress.targets import open_target
from tests.ssh_server import with_host
from tests.targets.kinds import KINDS

SHORT = BenchmarkConfig(max_seconds=1.0)


@pytest.fixture
def target():
    return open_target(LocalTarget(threads=1))


def lines(target):
    """What a card says of `model.onnx`, and its fence."""
    if target.card_language == "js":
        return target.javascript("model.onnx"), "```", "js"
    return target.opening("model.onnx", False), "```", "python"


@pytest.fixture
def artifact(tmp_path, make_chain):
    """A model and what a card says of it: the target's lines, and what a user adds."""
    (tmp_path / "artifact").mkdir()
    make_chain(tmp_path / "artifact" / "model.onnx", 256, 8)
    return tmp_path / "artifact"


@pytest.fixture
def timed(artifact, target, tmp_path, feeds, monkeypatch):
    monkeypatch.setattr(timing, "WARMUP_SECONDS", 0.05)
    monkeypatch.setattr(timing, "BLOCK_MS", 5.0)

    def ratio(code, fence="```", language="python", target=target):
        (artifact / "README.md").write_text(f"# a model\n\n{fence}{language}\n{code}\n{fence}\n")
        (tmp_path / "out").mkdir(exist_ok=True)
        inputs = {"w": {"x": np.ones((4, 256), np.float32), "unread": np.ones(3)}}
        time_card(target, SHORT, artifact, inputs, tmp_path / "out")
        return load_card_times(tmp_path / "out")

    return ratio


def test_a_card_that_waits_is_slower(timed, target):
    code = target.opening("model.onnx", False).replace(
        "    given =", "    __import__('time').sleep(0.01)\n    given ="
    )
    assert timed(code)["w"].value < 0.5


def test_a_card_is_run_whole_in_the_folder_of_its_model(timed, target, artifact):
    (artifact / "names.json").write_text("[1]")
    rest = "import json\nassert __name__ == '__main__'\nassert json.load(open('names.json')) == [1]"
    assert timed(f"{target.opening('model.onnx', False)}\n{rest}", fence="````")["w"].value > 0


def test_a_card_that_fails_is_told(timed, target):
    with pytest.raises(BenchmarkError, match=r"README\.md.*no such thing"):
        timed("raise ValueError('no such thing')")
    with pytest.raises(BenchmarkError, match="input_names"):
        timed("def run(feeds): pass")


def test_a_card_without_code_is_not_timed(timed, artifact, tmp_path, target):
    (artifact / "README.md").write_text("# a model\n\n```sh\nls\n```\n")
    (tmp_path / "out").mkdir()
    time_card(target, SHORT, artifact, {"w": {"x": np.ones((4, 256), np.float32)}}, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "as_shipped.json").read_text()) == {}


@pytest.mark.parametrize("kind", KINDS)
def test_on_every_target_the_card_runs_as_fast_as_what_was_timed(timed, kind, request, artifact):
    """By the lines that the target gives it, in a process of its own, there."""
    target = open_target(with_host(kind, request)(threads=1))
    (artifact / "checkpoint").mkdir()
    (artifact / "checkpoint" / "weights").write_text("no target reads it")
    ratio = timed(*lines(target), target)["w"]
    assert ratio.value == pytest.approx(1, abs=0.4)
    assert ratio.ci95[0] < ratio.value < ratio.ci95[1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [NodeTarget, pytest.param(BrowserTarget, marks=pytest.mark.exhaustive)])
def test_a_card_in_javascript_that_waits_is_slower_and_one_that_fails_is_told(timed, kind):
    target = open_target(kind(threads=1))
    code, *fenced = lines(target)
    waits = code.replace(
        "(feeds) => session", "(feeds) => new Promise((done) => setTimeout(done, 20)).then(() => session"
    ).replace(".run(feeds);", ".run(feeds));")
    assert timed(waits, *fenced, target)["w"].value < 0.5
    with pytest.raises(BenchmarkError, match=r"README\.md.*no such thing"):
        timed(f"{code}\nthrow new Error('no such thing');", *fenced, target)
    with pytest.raises(BenchmarkError, match=r"README\.md.*other\.onnx"):
        timed(code.replace("model.onnx", "other.onnx"), *fenced, target)
