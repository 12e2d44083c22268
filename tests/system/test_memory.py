import subprocess
import sys
import time

from compress.system import memory

HOLD = """
import sys, time
from compress.system.memory import cores
with cores(alone=sys.argv[1] == "alone"):
    print(time.monotonic(), flush=True)
    time.sleep(float(sys.argv[2]))
    print(time.monotonic(), flush=True)
"""


def hold(how: str, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, how, str(seconds)], stdout=subprocess.PIPE, text=True
    )


def times(process: subprocess.Popen[str]) -> list[float]:
    return [float(line) for line in process.communicate(timeout=60)[0].split()]


def test_a_benchmark_waits_until_nobody_computes_and_nobody_computes_meanwhile():
    first = [hold("shared", 1.5), hold("shared", 1.5)]
    time.sleep(0.8)
    alone = hold("alone", 0.5)
    time.sleep(0.5)
    late = hold("shared", 0.1)
    shared, exclusive, after = [times(p) for p in first], times(alone), times(late)
    assert shared[0][0] < shared[1][1]  # both at once
    assert shared[1][0] < shared[0][1]
    assert exclusive[0] >= max(end for _, end in shared)
    assert after[0] >= exclusive[1] or after[1] <= exclusive[0]


def test_a_killed_process_lets_go():
    stuck = hold("alone", 60)
    assert stuck.stdout is not None
    stuck.stdout.readline()
    stuck.kill()
    stuck.communicate()
    assert times(hold("alone", 0.0))


def test_who_waits_long_says_for_what(monkeypatch, caplog):
    monkeypatch.setattr(memory, "SILENT_SECONDS", 0.1)
    other = hold("alone", 1.0)
    assert other.stdout is not None
    other.stdout.readline()
    with memory.cores(alone=False):
        assert other.communicate(timeout=60)
    assert "waiting for another process of ours" in caplog.text
