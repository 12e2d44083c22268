"""The gate of quantized language models; the divergence itself is checked in test_weight_only.py."""

import math

import pytest

from compress.errors import GateError
from compress.quantize.fidelity import check_divergence
from compress.stages.result import read_result


@pytest.mark.parametrize(("kl", "limit"), [(0.25, 0.25), (0.0, 0.25), (9.0, None)])
def test_up_to_the_limit_passes(kl, limit, tmp_path):
    check_divergence(kl, limit, tmp_path)
    (passed,) = read_result(tmp_path).gates
    assert passed.numbers == {"kl": kl} | ({} if limit is None else {"limit": limit})


@pytest.mark.parametrize("kl", [0.2501, math.inf, math.nan])
def test_more_or_no_number_fails(kl, tmp_path):
    with pytest.raises(GateError, match=r"too far from the float model\n.*nats a token\n.*at most 0\.25"):
        check_divergence(kl, 0.25, tmp_path)
