"""A result is reused only while everything that made it is as it was."""

import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from compress import pipeline
from compress.config.compose import load_config
from compress.errors import StoreError
from compress.stages import code_version as code
from compress.stages import runner
from compress.stages.code_version import closure, code_version
from compress.stages.runner import StageRunner
from compress.stages.store import Store

MINILM = {
    "load": ("compress.tasks", "compress.tasks.sentence_embedding.model"),
    "split": ("compress.data", "compress.data.text"),
    "prune": ("compress.prune", "compress.prune.transformer"),
    "recover": ("compress.recover", "compress.tasks.sentence_embedding.training"),
    "export": ("compress.export", "compress.export.torch_onnx"),
    "quantize": ("compress.quantize", "compress.quantize.dynamic"),
    "evaluate": ("compress.evaluate", "compress.tasks.sentence_embedding.metrics"),
    "benchmark": ("compress.benchmark", "compress.targets.local"),
}
NODE = {"benchmark": ("compress.benchmark", "compress.targets.node")}
LANGUAGE = {
    "export": ("compress.export", "compress.export.genai"),
    "quantize": ("compress.quantize", "compress.quantize.weight_only"),
    "evaluate": ("compress.evaluate", "compress.tasks.language_modeling.metrics"),
}


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package's sources; whoever changes one puts it back."""
    folder = tmp_path_factory.mktemp("sources") / "compress"
    return shutil.copytree(code.PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__"))


@pytest.fixture
def sources(copied: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The copy, which `code_version` reads."""
    copy = copied
    monkeypatch.setattr(code, "PACKAGE", copy)
    forget()
    yield copy
    forget()


def forget() -> None:
    for cached in (code.code_version, code._digest):  # what a file imports, no test here changes
        cached.cache_clear()


def versions(stages: dict[str, tuple[str, str]], task: str = "") -> dict[str, str]:
    forget()
    return {stage: code_version(frozenset(roots), task) for stage, roots in stages.items()}


def changed_by(source: Path, stages: dict[str, tuple[str, str]], task: str = "") -> set[str]:
    """The stages whose version a byte in `source` changes."""
    before, text = versions(stages, task), source.read_text()
    assert versions(stages, task) == before
    source.write_text(text + "\n")
    try:
        after = versions(stages, task)
    finally:
        source.write_text(text)
    return {stage for stage in stages if after[stage] != before[stage]}


@pytest.mark.parametrize(
    ("source", "stages", "expected"),
    [
        ("graph/decoder.py", LANGUAGE, {"export", "quantize", "evaluate"}),
        ("graph/gates.py", LANGUAGE, {"export", "quantize", "evaluate"}),
        ("graph/gates.py", MINILM, {"export", "quantize", "evaluate"}),
        ("prune/least_squares.py", MINILM, {"prune"}),
        ("runner/collect.py", MINILM, {"benchmark"}),
        ("runner/javascript/npz.mjs", NODE, {"benchmark"}),
        ("runner/javascript/npz.mjs", MINILM, set()),
        ("registry.py", MINILM, set(MINILM)),
        ("prune/__init__.py", MINILM, {"prune"}),  # the package around what is imported
        ("quantize/static.py", MINILM, set()),  # another option
        ("data/images.py", MINILM, set()),  # another kind of data
        ("prune/channels.py", MINILM, set()),
        ("tasks/image_classification/training.py", MINILM, set()),
        ("tasks/image_classification/metrics.py", MINILM, set()),
        ("tasks/image_classification/augment.py", MINILM, set()),
        ("cli/main.py", MINILM, set()),
        ("pipeline.py", MINILM, set()),
        ("report/html.py", MINILM, set()),
    ],
)
def test_a_byte_changes_the_stages_that_reach_it(
    sources: Path, source: str, stages: dict[str, tuple[str, str]], expected: set[str]
) -> None:
    assert changed_by(sources / source, stages) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("sentence_embedding/metrics.py", {"evaluate", "quantize"}),
        ("sentence_embedding/processor.py", set(MINILM) - {"split"}),
        ("sentence_embedding/calibration.py", {"prune"}),
        ("sentence_embedding/training.py", {"recover"}),
        ("image_classification/model.py", set()),
        ("language_modeling/model.py", set()),
        ("language_modeling/processor.py", set()),
    ],
)
def test_stages_reach_what_they_use_of_their_own_task(sources: Path, source: str, expected: set[str]) -> None:
    assert changed_by(sources / "tasks" / source, MINILM, "sentence_embedding") == expected


def test_nets_named_in_strings_are_reached(sources: Path) -> None:
    stages = {"prune": ("compress.prune", "compress.prune.channels")}
    assert changed_by(sources / "models" / "image_nets.py", stages) == {"prune"}


def test_a_library_of_another_release_is_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = versions(MINILM)
    monkeypatch.setattr(code, "version", lambda name: "0.0")
    after = versions(MINILM)
    forget()
    assert not {stage for stage in MINILM if after[stage] == before[stage]}


@pytest.mark.parametrize(
    ("line", "reached"),
    [
        ("import compress.b", True),
        ("from compress import b", True),
        ("def f():\n    from compress.b import x", True),
        ('NET = "compress.b:net"', True),
        ('SCRIPT = "b.py"', True),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import compress.b", False),
        ("if TYPE_CHECKING:\n    pass\nelse:\n    import compress.b", True),
        ('@option("group", "name", "compress.b:f")\nclass Config: ...', False),
        ("import b", False),
        ('"""compress.b does it."""', False),
    ],
)
def test_what_counts_as_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, reached: bool
) -> None:
    package = tmp_path / "compress"
    package.mkdir()
    for name, text in (("__init__", "import compress.c"), ("a", line), ("b", ""), ("c", "")):
        (package / f"{name}.py").write_text(text)
    monkeypatch.setattr(code, "PACKAGE", package)
    assert {path.stem for path in closure(["compress.a"])} == ({"a", "b"} if reached else {"a"})


class Traced(Store):
    """Remembers which sources ran while each stage was made."""

    ran: dict[str, set[str]]

    def make(self, stage: str, key: Any, build: Callable[[Path, Path], None], **options: Any) -> Any:
        def traced(out: Path, scratch: Path) -> None:
            files = self.ran.setdefault(options["label"], set())
            before = sys.gettrace()
            sys.settrace(lambda frame, event, argument: files.add(frame.f_code.co_filename))
            try:
                build(out, scratch)
            finally:
                sys.settrace(before)

        return super().make(stage, key, traced, **options)


@pytest.mark.slow
def test_all_that_runs_in_a_stage_is_in_its_version(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise an edit would leave results of the code before it."""
    store, asked = Traced(tmp_path / "store"), []
    store.ran = {}

    def remember(roots: frozenset[str], task: str) -> str:
        asked.append(roots)
        return code_version(roots, task)

    monkeypatch.setattr(runner, "code_version", remember)
    shrink = ["prune.keep.ffn=0.5", "prune.round_to=8", "recover=distill", "recover.steps=2"]
    config = load_config([*tiny, "prune=transformer", *shrink, "quantize=int8_dynamic"])
    stages = StageRunner(store, Console(file=io.StringIO()), config.model.task)
    report = pipeline.run(config, tmp_path / "run", stages)
    assert [stage.name for stage in report.stages] == list(store.ran)
    for (stage, ran), roots in zip(store.ran.items(), asked, strict=True):
        ours = {name for name in ran if Path(name).is_relative_to(code.PACKAGE)}
        known = {
            *(str(path) for path in closure(roots, config.model.task)),
            str(code.PACKAGE / "stages" / "runner.py"),
        }
        assert len(ours) >= 2, stage
        assert ours <= known, stage


def test_code_that_changed_while_it_ran_makes_nothing(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in memory by then may be the source of before."""
    roots, changed = frozenset(["compress.prune.depth"]), sources / "prune" / "depth.py"
    monkeypatch.setattr(code, "_AT_START", {changed: changed.stat().st_mtime_ns})
    forget()
    code_version(roots)
    os.utime(changed, ns=(0, 0))
    forget()
    with pytest.raises(StoreError, match=r"the code changed while it ran(.|\n)*depth\.py"):
        code_version(roots)
