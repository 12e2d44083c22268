from dataclasses import MISSING, fields
from pathlib import Path

from compress.benchmark.speed import Speed
from compress.judge.across import Entry, losers
from compress.schema.estimates import Latency


def speed(**p50s):
    """Times of models on targets, `model_target=ms`, each known to a tenth."""
    latency = {}
    for name, ms in p50s.items():
        of_call = Latency(p50=ms, p90=ms, p99=ms, ci95=(ms * 0.9, ms * 1.1), samples=9)
        latency[name.replace("_", " on ")] = {"1x8": of_call}
    others = {item.name for item in fields(Speed) if item.default is item.default_factory is MISSING}
    empty = {name: {} for name in others - {"latency_ms"}}
    return Speed(latency_ms=latency, **empty)


def timed(measured):
    pairs = {name: name.split(" on ") for name in measured.latency_ms}
    return {name: Entry(model=m, path=Path(m), target=t) for name, (m, t) in pairs.items()}


def test_what_was_built_for_one_target_loses_on_another():
    measured = speed(a_local=1.0, b_local=2.0, a_node=4.0, b_node=3.0)
    said = list(losers(measured, timed(measured), {"a": "local", "b": "node"}))
    assert said == [
        "b, built for node, loses on local at 1x8: 2.00 ms, where a takes 1.00",
        "a, built for local, loses on node at 1x8: 4.00 ms, where b takes 3.00",
    ]


def test_what_is_not_told_apart_does_not_lose_and_nobody_loses_at_home():
    measured = speed(a_local=1.0, b_local=1.1, a_node=1.0, b_node=9.0)
    assert list(losers(measured, timed(measured), {"a": "node", "b": "node"})) == []
    assert list(losers(measured, timed(measured), {})) == []
