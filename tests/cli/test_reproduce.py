"""The same seed gives the same model, in another process and from nothing; no path or time is in it."""

import getpass
import json
import re
import shutil
import socket
import tempfile
from pathlib import Path

import onnx
import pytest

from compress.artifact import verify
from compress.cli.reproduce import Comparison, Scores, compare, config_of, differences, sums, verdict
from compress.config.compose import from_plain, load_config, options_of, to_plain
from compress.errors import ArtifactError, ConfigError
from compress.schema.estimates import Estimate, Score
from compress.schema.report import Report
from compress.system.disk import sha256_file
from tests.runs import run_fresh


@pytest.fixture(scope="session")
def reproduced(finished):
    """`compress reproduce` of the finished run, in a process of its own; its folder and what it printed."""
    done = run_fresh(finished.home, finished.cache, "reproduce", str(finished.folder / "artifact"))
    (folder,) = (finished.home / "outputs" / "tiny").glob("reproduced-*")
    return folder, done


@pytest.mark.slow
def test_another_process_makes_the_same_files_from_nothing(finished, reproduced):
    folder, done = reproduced
    assert done.returncode == 0, done.stdout + done.stderr
    assert "reused" not in done.stdout
    assert "benchmark" not in done.stdout
    assert "evaluate" not in done.stdout
    names = {"README.md", "manifest.json", "SHA256SUMS"}
    first = {p.relative_to(finished.folder / "artifact") for p in (finished.folder / "artifact").rglob("*")}
    assert first == {p.relative_to(folder / "artifact") for p in (folder / "artifact").rglob("*")}
    for path in first:
        old, new = finished.folder / "artifact" / path, folder / "artifact" / path
        assert old.is_dir() or str(path) in names or old.read_bytes() == new.read_bytes(), path
    words = re.findall(r"(\S+) +│ (same|differs|missing|new|not compared)", done.stdout)
    assert {name for name, word in words if word == "not compared"} == names
    assert {word for _, word in words} == {"same", "not compared"}
    verify(folder / "artifact")
    assert [path.name for path in folder.iterdir()] == ["artifact"]
    curve = Report.load(finished.folder / "report.json").recovery.select_cosine
    assert max(curve) > curve[0]  # else what training did would not have been compared


@pytest.mark.slow
def test_another_model_is_told(finished, tmp_path):
    """The manifest of a run with other quantization."""
    artifact = Path(shutil.copytree(finished.folder / "artifact", tmp_path / "artifact"))
    manifest = json.loads((artifact / "manifest.json").read_text())
    manifest["config"]["quantize"]["embeddings"] = False
    seal(artifact, manifest)
    done = finished.run("reproduce", str(artifact), home=tmp_path)
    assert done.returncode == 1, done.stderr
    assert re.search(r"model\.onnx +│ differs", done.stdout)
    assert re.search(r"tokenizer\.json +│ same", done.stdout)
    assert "another model" in done.stdout


@pytest.mark.slow
def test_an_artifact_of_other_releases_is_scored_beside_what_is_made_today(finished, tmp_path):
    """Exported by optimum, by its manifest, with another operator set; today's graph has other bytes."""
    artifact = Path(shutil.copytree(finished.folder / "artifact", tmp_path / "artifact"))
    graph = onnx.load(artifact / "model.onnx")
    graph.producer_name = "another"
    onnx.save(graph, artifact / "model.onnx")
    manifest = json.loads((artifact / "manifest.json").read_text())
    manifest["options"]["export"] = "optimum"
    manifest["config"]["export"]["opset"] = 14
    manifest["environment"]["packages"]["transformers"] = "4.57.6"
    manifest["files"]["model.onnx"] = sha256_file(artifact / "model.onnx")
    seal(artifact, manifest)
    done = finished.run("reproduce", str(artifact), home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not as before: export=optimum: now torch\n" in done.stdout
    assert re.search(r"not as before: transformers: 4\.57\.6, now \d", done.stdout)
    again, shipped = re.search(
        r"as good \(\w+ on select (\S+), shipped (\S+), worse by 0.0000 to 0.0000 on ", done.stdout
    ).groups()
    assert again == shipped


def seal(artifact, manifest):
    (artifact / "manifest.json").write_text(json.dumps(manifest))
    sums = {**manifest["files"], "manifest.json": sha256_file(artifact / "manifest.json")}
    (artifact / "SHA256SUMS").write_text("".join(f"{sums[name]}  {name}\n" for name in sorted(sums)))


def test_no_path_host_or_time_is_in_what_ships(finished):
    home = str(Path.home())
    forbidden = [str(finished.home), str(finished.cache), tempfile.gettempdir(), f"{home}/", socket.getfqdn()]
    forbidden += [f"/{getpass.getuser()}/", "site-packages", str(Path(__file__).parents[2])]
    files = [p for p in (finished.folder / "artifact").rglob("*") if p.suffix in (".onnx", ".safetensors")]
    assert len(files) == 2
    for path in files:
        content = path.read_bytes()
        assert [word for word in forbidden if word.encode() in content] == []
        assert re.findall(rb"20\d\d-[01]\d-[0-3]\d|[0-2]\d:[0-5]\d:[0-5]\d", content) == []


def test_the_manifest_holds_the_whole_configuration(finished):
    manifest = verify(finished.folder / "artifact")
    config = load_config(finished.overrides)
    assert from_plain(manifest.config, manifest.options) == config
    assert manifest.options["prune"] == "transformer"
    assert manifest.environment["torch_threads"] == 1
    made_for = config_of(manifest)
    assert made_for.target.cpu_flags == manifest.environment["isa_flags"]
    assert made_for.recover == config.recover


@pytest.mark.parametrize("overrides", [[], ["prune=none", "recover=none", "quantize=int8_static"]])
def test_a_configuration_survives_being_written_down(overrides):
    config = load_config(["experiment=minilm", *overrides])
    written = json.loads(json.dumps([to_plain(config), options_of(config)]))
    assert from_plain(*written) == config


def test_former_names_of_pruning_are_read():
    """As artifacts hold them that were made before there was one option for all transformers."""
    config = load_config(["experiment=smollm2", "prune=narrow_llm", "prune.keep.heads=0.5"])
    plain, chosen = to_plain(config), options_of(config)
    plain["prune"]["keep"]["kv_heads"] = plain["prune"]["keep"].pop("heads")
    assert from_plain(plain, chosen) == config
    config = load_config(["experiment=minilm", "prune=structured", "prune.keep.ffn=0.5"])
    plain, chosen = to_plain(config), options_of(config)
    for name in ("vocabulary", "calibration_tokens", "protect_first", "protect_last"):
        del plain["prune"][name]
    assert from_plain(plain, {**chosen, "prune": "structured"}) == config


def test_a_configuration_from_before_the_group_benchmark():
    config = load_config(
        ["experiment=minilm", "benchmark.workloads=[3x7]", "benchmark.seed=5", "target.threads=1"]
    )
    plain = to_plain(config)
    older = {**plain, "target": {**plain["target"], **plain["benchmark"]}}
    del older["benchmark"], older["target"]["provider"]
    assert from_plain(older, options_of(config)) == config


def test_a_configuration_that_is_none():
    config = load_config(["experiment=minilm"])
    plain, chosen = to_plain(config), options_of(config)
    with pytest.raises(ConfigError, match=r"quantize(.|\n)*int7(.|\n)*int8_dynamic"):
        from_plain(plain, {**chosen, "quantize": "int7"})
    with pytest.raises(ConfigError, match="exclued"):
        from_plain({**plain, "quantize": {"exclued": []}}, chosen)
    with pytest.raises(ConfigError, match="out of range"):
        from_plain({**plain, "recover": {**plain["recover"], "steps": 0}}, chosen)


def test_an_artifact_of_an_older_release(finished):
    import dataclasses

    manifest = dataclasses.replace(verify(finished.folder / "artifact"), options={})
    with pytest.raises(ArtifactError, match="options"):
        config_of(manifest)


def test_a_word_for_every_file(tmp_path):
    for name in ("model.onnx", "config.json", "more.json", "README.md"):
        (tmp_path / name).write_text(name)
    same = sha256_file(tmp_path / "model.onnx")
    expected = {"model.onnx": same, "config.json": "0" * 64, "gone.txt": "0" * 64, "README.md": "0" * 64}
    words = compare(expected, sums(tmp_path))
    assert words == {
        "README.md": "not compared",
        "config.json": "differs",
        "gone.txt": "missing",
        "model.onnx": "same",
        "more.json": "new",
    }
    assert Comparison(files=words, surroundings=()).same
    for word in ("differs", "missing", "new"):
        for name in ("model.onnx_data", "onnx/model_q4.onnx", "model-q8_0.gguf"):
            assert not Comparison(files={**words, name: word}, surroundings=()).same


def beside(again=0.9, drop=0.001, ends=(-0.005, 0.007), higher=True):
    return Scores(
        metric="cosine",
        again=Score(value=again, ci95=(again, again), n=40, higher_is_better=higher),
        drop=Estimate(value=drop, ci95=ends),
    )


DIFFERS = {"model.onnx": "differs", "manifest.json": "not compared"}


@pytest.mark.parametrize(
    ("changes", "as_good", "line"),
    [
        (
            {},
            True,
            "by other releases, but as good[/] (cosine on select 0.9000, shipped 0.9010, worse by -0.0050 to "
            "0.0070 on 40 paired examples, as good within 0.0090)",
        ),
        ({"scores": beside(drop=0.02, ends=(0.019, 0.021))}, False, "another model[/] (cosine on select 0.9"),
        ({"scores": beside(drop=-0.02, ends=(-0.021, -0.019))}, False, "another model[/] (cosine on"),
        ({"scores": beside(drop=0.0, ends=(-0.06, 0.06))}, False, "on 40 paired examples, as good within"),
        ({"scores": beside(again=-2.01, drop=0.01, ends=(0.009, 0.011))}, True, "shipped -2.0000, worse by"),
        (
            {"scores": beside(again=2.01, drop=0.01, ends=(0.009, 0.019), higher=False)},
            True,
            "shipped 2.0000, worse by 0.0090 to 0.0190 on 40 paired examples, as good within 0.0200)",
        ),
        (
            {"scores": beside(drop=float("nan"))},
            False,
            "another model[/] (cosine on select 0.9000, shipped nan",
        ),
        ({"releases": ()}, False, "another model[/] (cosine on select 0.9000, shipped 0.9010"),
        ({"splits": {"test": "differs"}}, False, "another model[/] (splits: test differs; cosine on"),
        ({"files": {"model.onnx": "same"}, "scores": None}, False, "the same model[/]"),
    ],
)
def test_what_other_releases_made_is_held_against_the_scores(changes, as_good, line):
    facts = {"files": DIFFERS, "surroundings": (), "releases": ("torch: 2.9, now 2.10",)}
    comparison = Comparison(**{**facts, "scores": beside(), **changes})
    assert comparison.as_good == as_good
    assert line in verdict(comparison)


def test_what_is_not_as_before_is_named():
    then = {
        "cpu": "A",
        "isa_flags": ["avx2", "avx512f"],
        "python": "3.11.0",
        "packages": {"torch": "2.9", "onnx": "1.19"},
        "git": {"commit": "abc", "dirty": False},
        "torch_threads": 4,
    }
    now = {
        "cpu": "A",
        "isa_flags": ["avx2", "neon"],
        "python": "3.11.0",
        "packages": {"torch": "2.10", "onnx": "1.19"},
        "git": None,
    }
    assert list(differences(then, then)) == []
    assert list(differences(then, now)) == [
        "CPU flags missing now: avx512f",
        "CPU flags new: neon",
        "torch: 2.9, now 2.10",
        "commit of compress: abc, now None",
    ]
