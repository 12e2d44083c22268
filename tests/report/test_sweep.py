"""The report of a sweep, from folders as a sweep leaves them; no number here was measured."""

import csv
import dataclasses
import io
import itertools
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import compress.schema.report
from compress.errors import ArtifactError
from compress.judge.sweep import read_sweep
from compress.judge.sweep_fronts import front_of
from compress.report.sweep import write_sweep
from compress.report.sweep_table import short_names, sweep_table
from compress.schema.estimates import Estimate, Latency
from compress.schema.report import Report, Variant, Verdict
from compress.schema.sweep import Front, Place, Sweep

EVIL = "<script>alert('x')</script>&\"|$x^2$"
FILES = {"sweep.json", "sweep.csv", "report.md", "report.html", "settings.svg"}
FILES |= {f"pareto_{kind}.svg" for kind in ("latency", "size", "memory")}


def written(folder: Path) -> Sweep:
    """The reports of the points in `folder`, written beside them."""
    sweep = read_sweep(folder)
    write_sweep(sweep, folder)
    return sweep


def around(value: float, half: float) -> Estimate:
    return Estimate(value=value, ci95=(value - half, value + half))


def made(
    report: Report, *, drop: float, speedup: float, size: float, ships: bool, noise: float = 1.0
) -> Report:
    """The report with another kept variant; `noise` slows the whole run, its dense model included."""
    dense, *others, last = report.variants
    kept = dataclasses.replace(
        last,
        size_bytes=round(size * 1e6),
        peak_memory_bytes=round((size * 4 + 90) * 1e6),
        drop_from_dense={report.primary_metric: around(drop, 0.006 + abs(drop) / 8)},
        speedup={w: around(speedup * (1 + i / 8), 0.04 * speedup) for i, w in enumerate(last.latency_ms)},
        latency_ms={w: slowed(dense.latency_ms[w], noise / speedup / (1 + i / 8))
                    for i, w in enumerate(last.latency_ms)},
    )  # fmt: skip
    dense = dataclasses.replace(
        dense, latency_ms={w: slowed(found, noise) for w, found in dense.latency_ms.items()}
    )
    verdict = Verdict(ships=ships, best=kept.name, reasons=("by hand",))
    return dataclasses.replace(report, variants=(dense, *others, kept), verdict=verdict)


def slowed(found: Latency, factor: float) -> Latency:
    low, high = found.ci95
    return dataclasses.replace(
        found,
        p50=found.p50 * factor,
        p90=found.p90 * factor,
        p99=found.p99 * factor,
        ci95=(low * factor, high * factor),
    )


def put(
    folder: Path, number: int, overrides: list[str], report: Report | None = None, **point: object
) -> None:
    run = folder / str(number)
    run.mkdir(parents=True)
    status = {"status": "done" if report else "failed", "error": None}
    (run / "point.json").write_text(json.dumps({"overrides": overrides, **status, **point}))
    if report:
        report.save(run / "report.json")


@pytest.fixture(scope="session")
def folder(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """keep x quantization, a repeated point, a failed and an unfinished one."""
    folder = tmp_path_factory.mktemp("sweep")
    keeps, methods = ("0.75", "0.5", "0.35", "0.25"), ("none", "int8_dynamic", "int8_static")
    grid = [*itertools.product(keeps, methods), ("0.50", "int8_dynamic")]
    for number, (keep, method) in enumerate(grid):
        overrides = [f"prune.keep.ffn={keep}", f"quantize={method}", "recover.steps=1200"]
        share, bits = float(keep), methods.index(method)
        drop = 0.004 + 0.06 * (1 - share) ** 2 + (0.0, 0.004, 0.022)[bits] - (0.006 if number == 3 else 0.0)
        speedup = (1.0, 1.9, 1.6)[bits] * (1.25 - 0.25 * share) / share**0.35
        size = (22 + 40 * share) * (1.0, 0.26, 0.25)[bits]
        one = made(report, drop=drop, speedup=speedup, size=size, ships=drop < 0.02 and speedup > 1.5,
                   noise=1 + number / 100)  # fmt: skip
        put(folder, number, overrides, one)
    common = "recover.steps=1200"
    error = "prune.keep.ffn is out of range\n  found:   1.5\n  allowed: 0 to 1"
    put(folder, 13, ["prune.keep.ffn=1.5", "quantize=none", common], error=error)
    put(folder, 14, ["prune.keep.ffn=0.5", "quantize=int4", common], status="running")
    (folder / "multirun.yaml").write_text("hydra: {}")
    return folder


@pytest.fixture(scope="session")
def drawn(folder: Path) -> dict[str, bytes]:
    """Drawing takes seconds, so the sweep is drawn once for all tests."""
    written(folder)
    return contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def parsed(html: str) -> ElementTree.Element:
    """The page is written so that an XML parser takes it too: every tag is closed."""
    return ElementTree.fromstring(html.removeprefix("<!DOCTYPE html>\n"))


def text_of(html: str) -> str:
    return " ".join("".join(parsed(html).itertext()).split())


# ---------------------------------------------------------------- fronts

# Few distinct values, so that ties and equal points are common.
estimates = st.tuples(st.integers(0, 6), st.integers(0, 2)).map(
    lambda pair: around(float(pair[0]), pair[1] / 2)
)
planes = st.lists(st.tuples(estimates, estimates), min_size=1, max_size=8).map(
    lambda pairs: [Place(number=i, cost=cost, drop=drop) for i, (cost, drop) in enumerate(pairs)]
)


def at(place: Place) -> tuple[float, float]:
    return place.cost.value, place.drop.value


def better(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a[0] <= b[0] and a[1] <= b[1] and a != b


def front(places: list[Place], dense: float = 5.0) -> Front:
    return front_of(places, dense, kind="latency", cost="latency at 1x32", unit="ms", workload="1x32")


@given(planes)
def test_no_member_is_dominated_and_every_other_point_is_by_a_member(places: list[Place]) -> None:
    found = front(places)
    assert sorted([*found.members, *(d.number for d in found.dominated)]) == [p.number for p in places]
    for number in found.members:
        assert not any(better(at(other), at(places[number])) for other in places)
    for each in found.dominated:
        assert better(at(places[each.by]), at(places[each.number]))
        assert any(better(at(places[n]), at(places[each.number])) for n in found.members)


@given(planes)
def test_a_domination_is_certain_wherever_in_its_intervals_the_truth_lies(places: list[Place]) -> None:
    def corners(place: Place) -> list[tuple[float, float]]:
        return list(itertools.product(place.cost.ci95, place.drop.ci95))

    def worse_nowhere(a: Place, b: Place) -> bool:
        return all(x[0] <= y[0] and x[1] <= y[1] for x in corners(a) for y in corners(b))

    for each in front(places).dominated:
        loser, winner = places[each.number], places[each.by]
        assert each.certain == worse_nowhere(winner, loser)
        # a certain dominator is named wherever there is one
        sure = [p for p in places if better(at(p), at(loser)) and worse_nowhere(p, loser)]
        assert each.certain == bool(sure)


@given(planes)
def test_hypervolume_counts_the_unit_squares_between_the_front_and_the_reference(places: list[Place]) -> None:
    found = front(places)
    cost, drop = found.reference
    assert (cost, drop) == (5.0, max(p.drop.value for p in places))
    squares = sum(
        any(p.cost.value <= x and p.drop.value <= y for p in places)
        for x in range(int(cost))
        for y in range(int(drop))
    )
    assert found.hypervolume == pytest.approx(squares)


def test_why_gives_both_numbers_with_the_digits_that_tell_them_apart() -> None:
    places = [
        Place(number=3, cost=around(15.0, 0.1), drop=around(0.010, 0.001)),
        Place(number=7, cost=around(12.1, 0.1), drop=around(0.002, 0.001)),
        Place(number=8, cost=around(12.10004, 0.1), drop=around(0.002, 0.001)),
    ]
    sentences = {d.number: (d.why, d.certain) for d in front(places, 20.0).dominated}
    assert sentences == {
        3: ("#7 is faster (12.1 vs 15.0 ms) and drops less (0.0020 vs 0.0100)", True),
        8: ("#7 is faster (12.10000 vs 12.10004 ms) and drops as much (0.00200)", False),
    }


def test_a_member_that_the_dense_model_beats_is_named() -> None:
    places = [Place(number=0, cost=around(9.0, 0), drop=around(0.1, 0)),
              Place(number=1, cost=around(4.0, 0), drop=around(0.2, 0))]  # fmt: skip
    assert front(places).beaten_by_dense == (0,)


# ---------------------------------------------------------------- the sweep and its files


def test_points_are_compared_by_their_speed_up(folder: Path) -> None:
    sweep = read_sweep(folder)
    assert [point.number for point in sweep.points] == list(range(15))
    assert sweep.varying == ("prune.keep.ffn", "quantize")
    assert sweep.fixed == ("recover.steps=1200",)
    assert sweep.same_settings == ((4, 12),)
    assert sweep.baseline is not None
    # the runs are 0 to 12 % slow, the median of 13 is the seventh
    assert sweep.baseline.latency_ms["1x32"] == pytest.approx(5.62 * 1.06)
    assert sweep.baseline.latency_range_ms["1x32"] == pytest.approx((5.62, 5.62 * 1.12))
    fourth, twelfth = sweep.point(4).kept, sweep.point(12).kept
    assert fourth is not None
    assert twelfth is not None
    assert twelfth.latency_ms["1x32"].p50 > 1.07 * fourth.latency_ms["1x32"].p50
    assert twelfth.comparable_ms == fourth.comparable_ms
    found, speedup = fourth.comparable_ms["1x32"], fourth.speedup["1x32"]
    assert found.value * speedup.value == pytest.approx(5.62 * 1.06)
    assert found.ci95[0] * speedup.ci95[1] == pytest.approx(5.62 * 1.06)
    assert sweep.max_drop == pytest.approx(0.05 * 0.5081)


def test_the_fastest_of_those_that_meet_the_budget_comes_first(report: Report, tmp_path: Path) -> None:
    for number, (speedup, ships) in enumerate([(2.0, True), (3.0, False), (2.5, True), (2.45, True)]):
        put(tmp_path, number, [f"a={number}"], made(report, drop=0.01, speedup=speedup, size=9, ships=ships))
    sweep = read_sweep(tmp_path)
    assert sweep.ships == (2, 3, 0)
    assert sweep.not_told_apart == (3,)


def test_points_of_several_targets_are_compared_on_each(report: Report, tmp_path: Path) -> None:
    """A front, a baseline and a column for each target; a browser's times beat no one else's."""
    for number, (target, speedup, noise) in enumerate(
        [("local", 2.0, 1.0), ("browser", 3.0, 8.0), ("local", 2.5, 1.0), ("browser", 1.5, 8.0)]
    ):
        one = made(report, drop=0.01, speedup=speedup, size=9, ships=True, noise=noise)
        one = dataclasses.replace(one, options={"target": target})
        put(tmp_path, number, [f"target={target}", f"a={number}"], one)
    sweep = written(tmp_path)
    of_each = report.variants[0].latency_ms
    assert sweep.workloads == tuple(f"{w} on {target}" for target in ("local", "browser") for w in of_each)
    assert sweep.baseline is not None
    assert sweep.baseline.latency_ms["1x32 on browser"] == pytest.approx(
        8 * sweep.baseline.latency_ms["1x32 on local"]
    )
    members = {front.workload: set(front.members) for front in sweep.fronts if front.kind == "latency"}
    assert members["1x32 on local"] == {2}
    assert members["1x32 on browser"] == {1}
    assert not any("processor" in doubt for doubt in sweep.doubts)


def test_page_is_well_formed_and_refers_only_to_itself_and_its_runs(drawn: dict[str, bytes]) -> None:
    html = drawn["report.html"].decode()
    root = parsed(html)
    ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
    assert len(ids) == len(set(ids))
    links = [v for e in root.iter() for k, v in e.attrib.items() if k.split("}")[-1] in {"href", "src"}]
    inside = {link[1:] for link in links if link.startswith("#")}
    assert inside <= set(ids)
    runs = {f"{number}/report.html" for number in range(13)} | {"13/", "14/"}
    assert {link for link in links if not link.startswith("#")} == runs
    assert not {"script", "link", "img", "iframe"} & {element.tag.split("}")[-1] for element in root.iter()}
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)


def test_page_and_markdown_tell_the_same(drawn: dict[str, bytes]) -> None:
    page, markdown = text_of(drawn["report.html"].decode()), drawn["report.md"].decode()
    for piece in (
        "Fastest that meets the budget: #1",
        "15 points: 13 done, 1 failed, 1 running",
        "On no front: #2, #3, #5, #6, #8, #9.",
        "The same settings: #4, #12.",
        "Every point was evaluated on the test split: the numbers of the best of 13 points",
        "same settings as #12",
        "#1 is faster (2.67 vs 4.15 ms) and drops less (0.0118 vs 0.0130)",
        "reference 5.96 ms (the dense model), 0.0598 (the worst drop seen)",
        "prune.keep.ffn is out of range",
        "what compares between points is the speed-up",
        "p50 of the dense model over the runs: 5.62 to 6.29 ms at 1x32",
    ):
        assert piece in page
        assert piece in markdown
    assert "| 2.67 (2.23 x [2.14, 2.32], faster) |" in markdown
    order = re.findall(r"^\| \[#(\d+)\]\(\1/report.html\)", markdown, flags=re.MULTILINE)
    assert order == ["10", "7", "11", "4", "12", "8", "5", "1", "9", "2", "6", "3", "0"]


def test_figures_are_xml_and_name_every_point(drawn: dict[str, bytes]) -> None:
    assert set(drawn) == FILES | {"multirun.yaml"}
    for name in FILES:
        if name.endswith(".svg"):
            text = "".join(ElementTree.fromstring(drawn[name]).itertext())
            assert {f"#{n}" for n in range(13)} <= set(text.split())
            assert ("#13" in text) == (name == "settings.svg")


def test_csv_and_json_hold_all_digits(folder: Path, drawn: dict[str, bytes]) -> None:
    lines = list(csv.DictReader(io.StringIO(drawn["sweep.csv"].decode())))
    assert [int(line["point"]) for line in lines] == list(range(15))
    kept = Report.load(folder / "7" / "report.json").variants[-1]
    assert float(lines[7]["speedup_low_8x128"]) == kept.speedup["8x128"].ci95[0]
    assert lines[7]["on_front_latency_at_1x32"] == "1"
    assert lines[13]["error"].splitlines()[0] == "prune.keep.ffn is out of range"
    assert lines[13]["drop"] == ""
    found = json.loads(drawn["sweep.json"])
    assert found["fronts"][0]["members"] == [10, 7, 4, 12, 1, 0]
    assert found["points"][7]["kept"]["speedup"]["8x128"]["value"] == kept.speedup["8x128"].value


@pytest.mark.parametrize(("width", "one_line"), [(80, False), (120, True)])
def test_console_fits_its_columns_with_the_interval_of_the_speed_up(
    folder: Path, width: int, one_line: bool
) -> None:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(sweep_table(read_sweep(folder), width))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= width
    at = next(i for i, line in enumerate(lines) if line.strip().startswith("#1*"))
    if one_line:
        row = "#1* 0.75 int8_dynamic 2.23 [2.14, 2.32] 0.012 [0.004, 0.019] 13.5 yes"
        assert " ".join(lines[at].split()) == row
    else:
        assert " ".join(lines[at].split()) == "#1* 0.75 int8_dynamic 2.23 0.012 13.5 yes"
        assert " ".join(lines[at + 1].split()) == "[2.14, 2.32] [0.004, 0.019]"
    assert [line.split()[-1] for line in lines if line.strip().startswith("#14")] == ["running"]
    order = re.findall(r"^ *#(\d+)", "\n".join(lines), flags=re.MULTILINE)
    assert order == ["10", "7", "11", "4", "12", "8", "5", "1", "9", "2", "6", "3", "0", "13", "14"]


@pytest.mark.slow
def test_redraw_in_another_process_and_place_gives_the_same_bytes(
    folder: Path, drawn: dict[str, bytes], tmp_path: Path
) -> None:
    for number in range(15):
        (tmp_path / str(number)).mkdir()
        for path in (folder / str(number)).iterdir():
            (tmp_path / str(number) / path.name).write_bytes(path.read_bytes())
    code = (
        "import pathlib, sys\nfrom compress.judge.sweep import read_sweep\n"
        "from compress.report.sweep import write_sweep\n"
        "folder = pathlib.Path(sys.argv[1])\nwrite_sweep(read_sweep(folder), folder)"
    )
    root = str(Path(compress.schema.report.__file__).parents[2])
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": root}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=environment)
    assert contents(tmp_path) == {name: drawn[name] for name in FILES}


# ---------------------------------------------------------------- thin and hostile sweeps


def test_one_point_and_a_redraw(report: Report, tmp_path: Path) -> None:
    one = {w: found for w, found in report.variants[0].latency_ms.items() if w == "1x32"}
    variants = tuple(dataclasses.replace(v, latency_ms=one) for v in report.variants)
    put(tmp_path, 0, ["prune.keep.ffn=0.5"], dataclasses.replace(report, variants=variants))
    (tmp_path / "settings.svg").write_text("left by an earlier sweep")
    sweep = written(tmp_path)
    files = contents(tmp_path)
    assert set(files) == FILES - {"settings.svg"}
    assert [found.members for found in sweep.fronts] == [(0,)] * 3
    # the only drop is the worst one
    assert [found.hypervolume for found in sweep.fronts] == [0.0] * 3
    assert "1 point: 1 done" in text_of(files["report.html"].decode())
    assert "All points: prune.keep.ffn=0.5." in files["report.md"].decode()
    assert "optimistic" not in files["report.md"].decode()  # nothing was chosen
    written(tmp_path)
    assert contents(tmp_path) == files


def test_no_point_with_a_result(tmp_path: Path) -> None:
    put(tmp_path, 0, ["a=1"], error="out of memory")
    put(tmp_path, 2, ["a=2"], status="done")  # but no report
    put(tmp_path, 10, ["a=3"], status="running")
    (tmp_path / "1").mkdir()
    sweep = written(tmp_path)
    assert [(p.number, p.status) for p in sweep.points] == [
        (0, "failed"), (1, "failed"), (2, "failed"), (10, "running")
    ]  # fmt: skip
    assert set(contents(tmp_path)) == {"sweep.json", "sweep.csv", "report.md", "report.html", "settings.svg"}
    page = text_of(contents(tmp_path)["report.html"].decode())
    for piece in (
        "No point has a result",
        "out of memory",
        "report.json is missing",
        "point.json is missing",
    ):
        assert piece in page
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(sweep_table(sweep, 100))
    assert console.export_text().count("failed") == 3


def test_points_with_missing_workloads_and_the_dense_model_as_a_point(
    report: Report, bare: Report, tmp_path: Path
) -> None:
    dense, *_, last = report.variants
    only = dataclasses.replace(last, speedup={"1x32": around(2.0, 0.1)}, peak_memory_bytes=None)
    put(tmp_path, 0, ["q=a"], dataclasses.replace(report, variants=(dense, only)))
    alone = Verdict(ships=False, best="dense", reasons=())
    put(tmp_path, 1, ["q=none"], dataclasses.replace(report, variants=(dense,), verdict=alone))
    sweep = read_sweep(tmp_path)
    fronts = {found.cost: found for found in sweep.fronts}
    assert fronts["latency at 1x32"].members == (0, 1)
    assert fronts["latency at 8x128"].missing == (0,)
    assert fronts["peak memory"].missing == (0,)
    kept = sweep.point(1).kept
    assert kept is not None
    assert kept.drop == Estimate(value=0.0, ci95=(0.0, 0.0))
    assert kept.comparable_ms["1x32"].value == 5.62
    # and a run in which nothing was measured
    put(tmp_path, 2, ["q=b"], bare)
    sweep = written(tmp_path)
    assert sweep.doubts == ()
    assert [found.missing for found in sweep.fronts] == [(2,), (0, 2), (0, 2), (), (0, 2)]


def test_times_stay_as_they_are_where_nobody_timed_the_dense_model(report: Report, tmp_path: Path) -> None:
    dense, *_, last = report.variants
    dense = dataclasses.replace(dense, latency_ms={}, peak_memory_bytes=None, not_timed="too large")
    for number in range(2):
        times = {w: slowed(each, 1 + number) for w, each in last.latency_ms.items()}
        small = dataclasses.replace(last, speedup={}, not_faster={}, latency_ms=times)
        put(tmp_path, number, [f"q={number}"], dataclasses.replace(report, variants=(dense, small)))
    sweep = read_sweep(tmp_path)
    kept = sweep.point(1).kept
    assert kept is not None
    assert kept.comparable_ms["1x32"].value == kept.latency_ms["1x32"].p50
    assert [found.cost for found in sweep.fronts] == ["size"]


def test_what_makes_points_incomparable_is_said(report: Report, tmp_path: Path) -> None:
    dense: Variant = dataclasses.replace(report.variants[0], parameters=1, size_bytes=1)
    other = dataclasses.replace(
        report,
        variants=(dense, *report.variants[1:]),
        environment=report.environment | {"cpu": "another"},
        splits={"test": dataclasses.replace(report.splits["test"], fingerprint="f")},
    )
    put(tmp_path, 0, ["model=a"], report)
    put(tmp_path, 1, ["model=b"], other)
    sweep = read_sweep(tmp_path)
    assert [re.search("dense model|test split|another", doubt)[0] for doubt in sweep.doubts] == [
        "dense model", "test split", "another"
    ]  # fmt: skip
    kept = sweep.point(1).kept
    assert kept is not None
    assert kept.comparable_ms["1x32"].value == report.variants[-1].latency_ms["1x32"].p50


def test_hostile_text_stays_text(report: Report, tmp_path: Path) -> None:
    variants = tuple(dataclasses.replace(v, name=f"{v.name}{EVIL}") for v in report.variants)
    verdict = Verdict(ships=True, best=variants[-1].name, reasons=(EVIL,))
    evil = dataclasses.replace(report, experiment=EVIL, variants=variants, verdict=verdict)
    put(tmp_path, 0, [f"{EVIL}={EVIL}"], evil)
    put(tmp_path, 1, [f"{EVIL}=1"], error=EVIL)
    written(tmp_path)
    html, markdown = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    assert "<script" not in html.lower()
    assert text_of(html).count(EVIL) > 5
    assert "<script" not in markdown
    for path in tmp_path.glob("*.svg"):
        assert "<script" not in path.read_text()
        ElementTree.fromstring(path.read_text())


def test_a_folder_without_points_is_no_sweep(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no sweep"):
        written(tmp_path)
    assert not list(tmp_path.iterdir())


def test_short_names_stay_apart() -> None:
    names = short_names(["prune.keep.ffn", "prune.keep.heads", "recover.steps", "search.steps", "steps"])
    assert list(names.values()) == ["ffn", "heads", "recover.steps", "search.steps", "steps"]
