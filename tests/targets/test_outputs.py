import numpy as np
import pytest

from compress.errors import BenchmarkError
from compress.graph.session import open_session
from compress.targets import open_target
from compress.targets import outputs as outputs_module
from compress.targets.browser import Browser
from compress.targets.outputs import outputs
from tests.ssh_server import with_host
from tests.targets.kinds import KINDS


@pytest.fixture(params=KINDS)
def target(request):
    return open_target(with_host(request.param, request)(threads=1))


def test_a_model_gives_on_the_target_what_a_session_here_gives(tmp_path, make_chain, target, monkeypatch):
    """Batch by batch in their order, over more jobs than one."""
    monkeypatch.setattr(outputs_module, "BATCHES", 3)
    model, random = make_chain(tmp_path / "a.onnx", 16, 2), np.random.default_rng(0)
    batches = [{"x": random.standard_normal((size, 16)).astype(np.float32)} for size in (1, 4, 2, 1, 7)]
    session = open_session(model)
    names = [output.name for output in session.get_outputs()]
    given = list(outputs(target, model, batches))
    assert len(given) == len(batches)
    for batch, arrays in zip(batches, given, strict=True):
        assert list(arrays) == names
        for name, wanted in zip(names, session.run(names, batch), strict=True):
            near_zero = 1e-6 if isinstance(target, Browser) else 0  # wasm adds in another order
            np.testing.assert_allclose(arrays[name], wanted, rtol=1e-5, atol=near_zero)


def test_a_model_that_does_not_load_is_named(tmp_path, target):
    (tmp_path / "b.onnx").write_bytes(b"not an onnx file")
    with pytest.raises(BenchmarkError, match=r"'small': .*(Protobuf|no ONNX model)"):
        list(outputs(target, tmp_path / "b.onnx", [{"x": np.ones(1)}], name="small"))
