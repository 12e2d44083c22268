"""A language model too large for float32, which a tiny one in bfloat16 is taken for, through a whole run."""

import json
import re
import shutil

import onnx
import pytest
from safetensors.torch import load_file, save_file

from compress.report.format import megabytes
from compress.schema.report import Report

pytestmark = pytest.mark.slow


@pytest.fixture
def words(language_published, language_texts, tmp_path):
    """Of a run on a tiny language model in bfloat16."""
    source, texts = tmp_path / "published", tmp_path / "texts.txt"
    shutil.copytree(language_published["qwen2"], source)
    for path in source.glob("*.safetensors"):
        save_file({name: each.bfloat16() for name, each in load_file(path).items()}, path, {"format": "pt"})
    described = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(described | {"dtype": "bfloat16"}))
    texts.write_text("\n".join(language_texts) + "\n")
    return [
        *("experiment=smollm2", "model=causal_lm", f"model.source=path:{source}", "data=documents"),
        f'+data.corpora={{made: {{source: "path:{texts}", format: lines}}}}',
        "+data.test={made: 20}", "+data.select={made: 10}", "+data.calibration={made: 30}",
        *("evaluate.context=64", "evaluate.stride=64", "evaluate.tokens=1024", "evaluate.resamples=200"),
        *("evaluate.prompt_tokens=8", "evaluate.new_tokens=8", "quantize.block_size=16", "quantize.max_kl=1"),
        *("benchmark.workloads=[1x16,1x1+16]", "benchmark.max_seconds=1", "target.threads=1"),
    ]  # fmt: skip


def test_quality_is_that_beside_a_plain_baseline_and_only_what_ships_is_timed(
    words, compress, tmp_path, monkeypatch
):
    reports = []
    for limit in (10**9, 0):
        monkeypatch.setattr("compress.models.needs.LARGE", limit)
        done = compress("run", *words, f"name=from_{limit}", "budget.min_speedup=0.1")
        assert done.returncode == 0, done.stderr
        reports.append(Report.load(tmp_path / f"outputs/from_{limit}/latest/report.json"))
    plain, large = reports
    assert [each.name for each in plain.variants] == ["dense", "fused", "int8"]
    assert [each.name for each in large.variants] == ["dense", "int8"]
    assert plain.variants[-1].sha256 == large.variants[-1].sha256
    for before, after in zip(plain.variants[::2], large.variants, strict=True):
        assert before.quality.keys() == after.quality.keys()
        for metric, score in before.quality.items():
            assert after.quality[metric].value == pytest.approx(score.value, rel=1e-5), metric
        assert after.fidelity["kl"].value == pytest.approx(before.fidelity["kl"].value, abs=1e-6)

    dense, small = large.variants
    assert (dense.latency_ms, dense.profile, dense.peak_memory_bytes) == ({}, {}, None)
    assert small.latency_ms.keys() == small.profile.keys() == {"1x16", "1x1+16"}
    assert plain.variants[-1].speedup
    assert not small.speedup
    assert not large.verdict.ships
    assert large.verdict.reasons.count(f"no speed-up is known (budget 0.1x): {dense.not_timed}") == 1
    for name in ("report.md", "report.html", "artifact/README.md"):
        assert "it would be widened for each token" in (tmp_path / "outputs/from_0/latest" / name).read_text()

    graph = onnx.load(tmp_path / "cache/store/entries" / dense.path, load_external_data=False).graph
    matrices = {
        each.data_type for each in graph.initializer if len(each.dims) == 2 and "cache" not in each.name
    }
    assert matrices == {onnx.TensorProto.BFLOAT16}


def test_a_gguf_file_beside_it_is_told_of_and_made_again(words, compress, tmp_path):
    done = compress("run", *words, "name=both", "ship.gguf=q8_0")
    assert done.returncode == 0, done.stderr
    artifact = (tmp_path / "outputs/both/latest/artifact").resolve()
    size = (artifact / "model-q8_0.gguf").stat().st_size
    assert f"`model-q8_0.gguf` ({megabytes(size)} MB)" in (artifact / "README.md").read_text()
    assert compress("verify", str(artifact)).returncode == 0
    done = compress("reproduce", str(artifact))
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"model-q8_0\.gguf +│ same", done.stdout)
