"""Models are held against stock libraries when they are read: by a script in a fresh process."""

import subprocess
from types import SimpleNamespace

import numpy as np
import pytest

from compress.config.model import CausalLMModel
from compress.errors import GateError, ModelError
from compress.stages.result import read_result
from compress.tasks import import_model, reading
from compress.tasks.language_modeling import stock


@pytest.fixture
def fresh_process(monkeypatch):
    monkeypatch.setattr(reading, "subprocess", subprocess)


@pytest.mark.slow
def test_the_script_of_a_fresh_process_says_the_same(language_published, tmp_path, fresh_process):
    import_model(CausalLMModel(source=f"path:{language_published['llama']}"), tmp_path)
    [gate] = read_result(tmp_path).gates
    assert gate.name.startswith("read as transformers 5")
    marked = 3  # the model's own marks, and two texts that are given marks
    assert gate.numbers["equal_tokens"] == len(reading.TEXTS) + marked
    assert gate.numbers["equal_ends"] == 1
    assert gate.numbers["max_abs_diff_of_outputs"] < 1e-5


ONE = {"tokens/a": np.arange(3), "outputs/a": np.ones((2, 4), np.float32)}


def test_equal_parts_are_counted():
    near = {**ONE, "outputs/a": ONE["outputs/a"] + 1e-5}
    numbers = reading.compare(near, ONE)
    assert numbers == {"equal_tokens": 1, "max_abs_diff_of_outputs": pytest.approx(1e-5, rel=0.1)}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"tokens/a": np.array([0, 1, 3]), "outputs/a": np.zeros((2, 4))}, r"the tokens .*\n.*a: 3 values"),
        ({"tokens/a": np.arange(2)}, "the tokens "),
        ({"outputs/a": np.full((2, 4), 1.001, np.float32)}, r"the outputs .*\n.*max abs difference 0.001"),
        ({"outputs/a": np.full((2, 4), np.nan, np.float32)}, "difference nan"),
        ({"outputs/b": np.ones(1)}, r"b: 1 values \[1.0\] here, nothing there"),
    ],
)
def test_the_first_part_that_differs_is_named(changed, told):
    with pytest.raises(GateError, match=told):
        reading.compare({**ONE, **changed}, ONE)


@pytest.mark.slow
def test_what_the_stock_library_does_not_open(tmp_path, fresh_process):
    (tmp_path / "config.json").write_text('{"model_type": "unheard_of"}')
    with pytest.raises(ModelError, match=f"{tmp_path.name} is .* does not open it\n  found:"):
        reading.stock_answers(stock, tmp_path, {"texts": {}, "ids": {}, "positions": {}})


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("ModuleNotFoundError: No module named 'sentence_transformers'", "sentence-transformers"),
        ("ImportError: cannot import name 'x' from 'transformers.utils' (y.py)", "transformers"),
    ],
)
def test_a_library_that_is_not_there_is_named(error, said, tmp_path, monkeypatch):
    def run(command, **_):
        return subprocess.CompletedProcess(command, 1, "", f"Traceback\n{error}\n")

    monkeypatch.setattr(reading, "subprocess", SimpleNamespace(run=run))
    with pytest.raises(ModelError, match=rf"^{said} cannot be imported(.|\n)*next: +pip install"):
        reading.stock_answers(stock, tmp_path, {})
