from dataclasses import dataclass
from pathlib import Path

import pytest

from compress.errors import StoreError
from compress.schema.quantization import Coverage, SkippedNode
from compress.stages.result import StageResult, gate, read_result, write_result

COVERAGE = Coverage(
    coverage_macs=0.5, coverage_bytes=0.25, skipped=(SkippedNode(node="n", reason="activations"),)
)


def test_what_was_written_in_parts_is_read_as_one(tmp_path: Path) -> None:
    write_result(tmp_path, gates=[gate("parity", max_abs_diff=1e-6)], ships=["model.onnx"])
    write_result(tmp_path, gates=[gate("coverage", macs=0.5)], facts={"coverage": COVERAGE, "level": 4})
    write_result(
        tmp_path, facts={"level": 0, "loss": [float("inf")]}, ships=["model.onnx", "checkpoint/config.json"]
    )
    result = read_result(tmp_path)
    assert [(each.name, each.numbers) for each in result.gates] == [
        ("parity", {"max_abs_diff": 1e-6}),
        ("coverage", {"macs": 0.5}),
    ]
    assert result.fact("coverage", Coverage) == COVERAGE
    assert result.fact("level", int) == 0
    assert result.facts["loss"] == [float("inf")]
    assert result.ships == ("model.onnx", "checkpoint/config.json")


def test_a_stage_that_says_nothing(tmp_path: Path) -> None:
    assert read_result(tmp_path) == StageResult()
    assert StageResult().fact("coverage", Coverage) is None


def test_a_fact_of_another_kind(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Other:
        ships: bool

    write_result(tmp_path, facts={"coverage": COVERAGE})
    with pytest.raises(StoreError, match=r"coverage in stage\.json is not a Other"):
        read_result(tmp_path).fact("coverage", Other)


def test_damage(tmp_path: Path) -> None:
    (tmp_path / "stage.json").write_text('{"gates": 3}')
    with pytest.raises(StoreError, match="not what a stage writes"):
        read_result(tmp_path)
