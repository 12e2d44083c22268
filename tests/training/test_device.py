import pytest
import torch

from compress.cli.preflight import check
from compress.config.compose import load_config
from compress.config.recover import Device
from compress.errors import ConfigError
from compress.models.device import chosen

CASES = [("auto", True, "cuda"), ("auto", False, "cpu"), ("cpu", True, "cpu"), ("cuda", True, "cuda")]


@pytest.mark.parametrize(("device", "gpu", "expected"), CASES)
def test_where_it_trains(device, gpu, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert chosen(Device(device)).type == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told_before_anything_runs(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    words = ["model=encoder", f"model.source='path:{tmp_path}'", "recover=distill", "recover.device=cuda"]
    with pytest.raises(ConfigError, match=r"no GPU(.|\n)*auto, cpu"):
        check([load_config(words)])
