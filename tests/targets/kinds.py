"""The kinds of targets that are held against the same cases."""

from importlib.util import find_spec

import pytest

from compress.config.target import BrowserTarget, LocalTarget, NodeTarget, OpenvinoTarget, SshTarget

OPENVINO = pytest.param(
    OpenvinoTarget,
    marks=pytest.mark.skipif(find_spec("openvino") is None, reason="needs the extra openvino"),
)
KINDS = [
    LocalTarget,
    NodeTarget,
    # test_browser.py has what CI runs; each of these cases starts several browsers.
    pytest.param(BrowserTarget, marks=[pytest.mark.slow, pytest.mark.exhaustive]),
    pytest.param(SshTarget, marks=pytest.mark.slow),  # test_ssh.py has quick ones of its own
    OPENVINO,
]
