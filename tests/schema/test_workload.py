"""The size of a timed call, read and written."""

import pytest

from compress.errors import ConfigError
from compress.schema.workload import Workload


@pytest.mark.parametrize(
    ("text", "workload"), [("8x128", Workload(8, 128)), ("1x1+442", Workload(1, 1, past=442))]
)
def test_a_workload_is_read_and_written(text, workload):
    assert Workload.parse(text) == workload
    assert str(workload) == text


@pytest.mark.parametrize("wrong", ["1x1+", "1x1+0", "1+442", "1x1+4+4", "1x1x4", "+4", "1x1+-4", "x1", "0x1"])
def test_a_workload_that_cannot_be_read(wrong):
    with pytest.raises(ConfigError, match=r"1x1\+442"):
        Workload.parse(wrong)
