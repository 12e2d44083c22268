import os

import pytest

from compress.system import cpu as machine


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


def test_cpu_facts():
    facts = machine.cpu_facts()
    assert facts["model"]
    assert facts["memory_bytes"] > 2**28
    assert facts["logical_cores"] == os.cpu_count()
    assert set(facts) == {"model", "flags", "physical_cores", "logical_cores", "memory_bytes", "governor"}
