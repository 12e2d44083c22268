from types import SimpleNamespace

from compress.cli.sweep import timing_words, unused
from compress.config.compose import expand
from compress.schema.report import Report


def test_all_targets_are_timed_by_what_every_point_says():
    shared = ["benchmark.workloads=[1x16]", "target.tune=true", "name=a"]
    points = expand([*shared, "target=local,node", "target.threads=1,2"], True)
    assert len(points) == 4
    assert timing_words(points) == ["benchmark.workloads=[1x16]"]
    assert timing_words(expand([*shared, "target=local,node", "target.threads=2"], True)) == [
        "benchmark.workloads=[1x16]",
        "target.threads=2",
    ]


def test_settings_that_were_chosen_for_one_target_alone_are_named(tmp_path, monkeypatch):
    chosen = {
        "0": {"quantize": "int8_static", "target.rewrites": ["gelu_tanh"]},
        "1": {"quantize": "int8_static", "target.threads": 1, "target.fixed_shapes": True},
        "2": None,
    }

    def load(path):
        found = chosen[path.parent.name]
        return SimpleNamespace(tuning=None if found is None else SimpleNamespace(chosen=found))

    monkeypatch.setattr(Report, "load", load)
    [said] = unused(tmp_path / number / "artifact" for number in chosen)
    assert said.startswith(
        f"{tmp_path}/1/artifact was timed here without target.threads=1 target.fixed_shapes=true, "
    )
