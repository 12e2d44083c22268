"""What the folder of a task has to hold, whoever adds one."""

import re
from importlib import import_module
from pathlib import Path

import pytest

import compress
from compress.config.declare import declare_options
from compress.data.layouts import LABELS
from compress.registry import OPTIONS, TRAITS, declared, fitting
from compress.tasks import TASKS
from compress.tasks.text.heads import HeadedModel

declare_options()
HEADED = [task for task in TASKS if "labelled_text" in TRAITS.get(task, ())]
# module -> what stages call there
MUST_HAVE = {
    "model": ["open_model"],
    "processor": ["open_processor"],
    "metrics": ["score", "compare"],
    "calibration": ["open_calibration"],
    "training": [],
    "importing": [],
    "card": ["card_facts"],
}


@pytest.mark.parametrize("task", TASKS)
def test_a_task_has_what_stages_call(task):
    for module, names in MUST_HAVE.items():
        found = import_module(f"compress.tasks.{task}.{module}")
        assert all(callable(getattr(found, name)) for name in names)


@pytest.mark.parametrize("task", TASKS)
def test_a_task_has_a_model_and_metrics_of_its_own(task):
    models = [kind for kind in OPTIONS["model"].values() if kind.task == task]
    assert models
    assert all(kind.what != "a model" and kind.published_as for kind in models)
    assert fitting("evaluate", task)


@pytest.mark.parametrize("task", HEADED)
def test_a_task_of_labelled_text_says_which_examples_it_reads(task):
    models = [kind for kind in OPTIONS["model"].values() if kind.task == task]
    assert {kind.examples for kind in models} <= LABELS.keys()


@pytest.mark.parametrize("task", HEADED)
def test_nothing_outside_of_its_folder_names_a_task_of_texts(task):
    """So that the next one is its folder, its YAML and its test."""
    root = Path(compress.__file__).parent
    others = [path for path in root.rglob("*.py") if root / "tasks" / task not in path.parents]
    assert not [path for path in others if re.search(rf"\b{task}\b", path.read_text())]


@pytest.mark.parametrize("task", HEADED)
def test_options_of_text_encoders_work_on_every_head(task):
    """By traits: nothing lists the tasks."""
    wanted = {
        "data": {"records", "text", "documents"},
        "prune": {"none", "transformer", "structured"},
        "recover": {"none", "distill"},
        "export": {"torch"},
        "quantize": {"none", "int8_dynamic", "int8_static", "fp16", "q4f16"},
        "evaluate": {task},
    }
    assert {
        group: set(fitting(group, task, "transformer")) & names for group, names in wanted.items()
    } == wanted
    assert fitting("evaluate", task) == [task]
    for kind in OPTIONS["data"].values():
        assert not {*HEADED} & {*declared(kind).works_on, *declared(kind).not_on}
    model = import_module(f"compress.tasks.{task}.model").open_model.__self__
    assert issubclass(model, HeadedModel)
    assert model.task == task
    assert callable(import_module(f"compress.tasks.{task}.training").distill)


def test_four_tasks_have_a_head():
    assert HEADED == ["question_answering", "reranking", "text_classification", "token_classification"]
