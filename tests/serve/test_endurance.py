"""A thousand requests, many of whose clients hang up, leave the server as large as it was."""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openai
import psutil
import pytest

from tests.runs import environment
from tests.shipped import TEMPLATE, ship_tiny

ROOT = Path(__file__).resolve().parents[2]
WARM, ALL, AT_ONCE = 200, 1000, 8


def ask(client, number):
    """A request of random length, streamed or whole, of which every fifth client hangs up; how it ends."""
    random = np.random.default_rng(number)
    words = " ".join(f"w{word}" for word in random.integers(0, 40, random.integers(1, 250)))
    asked = {"model": "m", "max_tokens": int(random.integers(1, 40)), "seed": number, "temperature": 2.0}
    stream = bool(number % 2)
    if number % 3:
        found = client.chat.completions.create(
            messages=[{"role": "user", "content": words}], stream=stream, **asked
        )
    else:
        found = client.completions.create(prompt=words, stream=stream, **asked)
    if not stream:
        return found.choices[0].finish_reason
    if number % 5 == 0:
        next(found)
        found.close()
        return "gone"
    *_, last = found
    return last.choices[0].finish_reason


@pytest.mark.slow
def test_memory_stays_flat_over_a_thousand_requests(tmp_path, tiny_lm):
    shipped = ship_tiny(tmp_path, tiny_lm, 300, TEMPLATE)
    command = [sys.executable, "-m", "compress", "serve", str(shipped), "--port", "0"]
    log = tmp_path / "log"
    with (
        log.open("w") as errors,
        subprocess.Popen(command, cwd=ROOT, env=environment(tmp_path), stderr=errors) as process,
    ):
        try:
            while not (place := re.search(r"http://\S+", log.read_text())):
                assert process.poll() is None
            measured = psutil.Process(process.pid)
            with (
                openai.OpenAI(base_url=place.group(), api_key="none", max_retries=0, timeout=60) as client,
                ThreadPoolExecutor(AT_ONCE) as pool,
            ):
                ends = list(pool.map(lambda number: ask(client, number), range(WARM)))
                warm = measured.memory_info().rss
                ends += pool.map(lambda number: ask(client, number), range(WARM, ALL))
                assert measured.memory_info().rss < 1.05 * warm
        finally:
            process.terminate()
    assert process.returncode == 0
    lines = [line for line in log.read_text().splitlines() if "POST" in line]
    assert len(lines) == ALL
    assert ends.count("gone") == ALL // 10
    assert {*ends} == {"gone", "length"}
    assert "Traceback" not in log.read_text()
    assert all(" 200 " in line for line in lines)
