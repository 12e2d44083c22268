import json
import os
import subprocess
import sys

import psutil
import pytest

from compress.runner import machine
from compress.runner.with_onnxruntime import runtime_facts
from compress.targets.bundle import pack


@pytest.mark.parametrize(
    ("text", "cpus"), [(None, None), ("max 100000", None), ("200000 100000", 2.0), ("50000 100000", 0.5)]
)
def test_cpu_quota(text, cpus):
    assert machine.cpu_quota(text) == cpus


def test_threads_are_within_the_affinity():
    before = os.sched_getaffinity(0)
    assert 1 <= machine.threads_available() <= len(before)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert machine.threads_available() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_facts():
    facts = machine.machine_facts(runtime_facts())
    assert facts["model"]
    assert facts["memory_bytes"] > 2**28
    assert facts["logical_cores"] == os.cpu_count()
    assert facts["physical_cores"] == psutil.cpu_count(logical=False)
    assert facts["memory_bytes"] == psutil.virtual_memory().total
    assert facts["runtime"]["distribution"].startswith("onnxruntime")
    assert "CPUExecutionProvider" in facts["runtime"]["providers"]


def test_it_needs_nothing_but_onnxruntime(tmp_path):
    found = subprocess.run(
        [sys.executable, "-I", pack(tmp_path), "--facts", "onnxruntime"],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    assert json.loads(found.stdout) == machine.machine_facts(runtime_facts())
