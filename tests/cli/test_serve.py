"""`compress serve` as a shell starts it, and what it may not be asked."""

import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest

from compress.cli.main import main
from compress.cli.serve import listen
from compress.errors import ConfigError
from tests.runs import environment
from tests.shipped import greedy, ship_tiny

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory, tiny_lm):
    return ship_tiny(tmp_path_factory.mktemp("lm"), tiny_lm, 64)


@contextmanager
def started(shipped, *flags):
    """The process and where it says that it answers."""
    command = [sys.executable, "-m", "compress", "serve", str(shipped), "--port", "0", *flags]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(shipped), stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            line = process.stderr.readline()
            yield process, re.search(r"http://\S+", line).group()
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_in_order(shipped, tiny_lm, number):
    with started(shipped) as (process, url):
        with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
            asked = {"prompt": "w5 w3 w9", "max_tokens": 3, "temperature": 0}
            text = client.completions.create(model="m", **asked).choices[0].text
        assert text.split() == [f"w{each}" for each in greedy(tiny_lm, [5, 3, 9], 3)]
        process.send_signal(number)
        rest = process.stderr.read()
        assert process.wait(20) == 0
    assert re.fullmatch(r"[\d:]{8} POST /v1/completions 200 3\+3 tokens, length in [\d.]+ s\nstopped\n", rest)


def test_two_servers_on_one_port(shipped, capsys):
    with listen("127.0.0.1", 0) as place:
        port = place.getsockname()[1]
        assert main(["serve", str(shipped), "--port", str(port)]) == 1
    said = capsys.readouterr().err
    assert f"cannot listen at 127.0.0.1, port {port}" in said
    assert "Address already in use" in said
    assert f"--port {port + 1}" in said
    listen("127.0.0.1", port).close()  # as soon as the other one is gone


def test_an_address_of_another_machine():
    with pytest.raises(ConfigError, match=r"cannot listen at 192\.0\.2\.1"):
        listen("192.0.2.1", 0)


@pytest.mark.parametrize(("flag", "value"), [("--port", "70000"), ("--queue", "-1"), ("--context", "1")])
def test_flags_out_of_range(shipped, flag, value, capsys):
    assert main(["serve", str(shipped), flag, value]) == 1
    assert f"{flag} is out of range" in capsys.readouterr().err


def test_what_is_no_artifact(tmp_path, capsys):
    assert main(["serve", str(tmp_path), "--port", "0"]) == 1
    assert "no artifact" in capsys.readouterr().err
