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

import compress.result
from compress.errors import ArtifactError
from compress.report.sweep import read_sweep, write_sweep
from compress.report.sweep_fronts import front_of
from compress.report.sweep_table import short_names, sweep_csv, sweep_table
from compress.result import Estimate, Latency, Report, Variant, Verdict
from compress.sweep_result import Front, Place

EVIL = "<script>alert('x')</script>&\"|$x^2$"
FILES = {"sweep.json", "sweep.csv", "report.md", "report.html", "settings.svg"}
FILES |= {f"pareto_{kind}.svg" for kind in ("latency", "size", "memory")}


def around(value: float, half: float) -> Estimate:
    return Estimate(value=value, ci95=(value - half, value + half))


def made(report: Report, *, drop: float, speedup: float, size: float, ships: bool, noise: float = 1.0) -> Report:
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


def put(folder: Path, number: int, overrides: list[str], report: Report | None = None, **point: object) -> None:
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
    write_sweep(folder)
    return contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
