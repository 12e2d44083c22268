"""The endpoint as the stock client of OpenAI's API sees it."""

import json
import logging
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openai
import pytest
import torch
import transformers

from compress.models import read_check_inputs
from compress.serve import server
from compress.serve.shipped import Shipped
from compress.serve.writer import Writing
from tests.shipped import TEMPLATE, greedy, ship, ship_tiny

CONTEXT = 60


@pytest.fixture(scope="module")
def running(tmp_path_factory, tiny_lm, serving):
    shipped = Shipped(ship_tiny(tmp_path_factory.mktemp("lm"), tiny_lm, CONTEXT, TEMPLATE))
    with serving(shipped) as found:
        yield found


@pytest.fixture
def client(running):
    with openai.OpenAI(base_url=running.url, api_key="none", max_retries=0, timeout=20) as found:
        yield found


@pytest.fixture
def complete(client):
    def complete(prompt, **more):
        return client.completions.create(model="m", prompt=prompt, temperature=0, **more)

    return complete


def words(ids):
    return " ".join(f"w{number}" for number in ids)


def messages(text):
    return [{"role": "system", "content": "w7"}, {"role": "user", "content": text}]


def test_models(client):
    [model] = client.models.list().data
    assert (model.id, model.object) == ("m", "model")
    assert client.models.retrieve("m").id == "m"
    with pytest.raises(openai.NotFoundError, match="no model 'x'"):
        client.models.retrieve("x")


def test_a_completion(complete, tiny_lm):
    found = complete("w5 w3 w9", max_tokens=6)
    [choice] = found.choices
    assert (choice.text, choice.finish_reason) == (" " + words(greedy(tiny_lm, [5, 3, 9], 6)), "length")
    usage = found.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (3, 6, 9)
    assert complete([5, 3, 9], max_tokens=6).choices[0].text == choice.text
    assert complete("w5 w3 w9").usage.completion_tokens == 16
    assert complete("w5 w3 w9").usage.prompt_tokens_details.cached_tokens == 2


def test_a_completion_in_pieces(client):
    asked = {"model": "m", "prompt": "w5 w3 w9", "max_tokens": 12, "temperature": 9.0, "seed": 3}
    drawn = client.completions.create(**asked).choices[0].text
    assert len(set(drawn.split())) > 6
    stop = " " + " ".join(drawn.split()[5:7]) + " "  # no other word begins with its last one
    for more, text, end in (({}, drawn, "length"), ({"stop": [stop]}, drawn[: drawn.index(stop)], "stop")):
        pieces = list(client.completions.create(**asked, stream=True, **more))
        assert client.completions.create(**asked, **more).choices[0].text == text
        assert "".join(piece.choices[0].text for piece in pieces) == text
        assert [piece.choices[0].finish_reason for piece in pieces] == [None] * (len(pieces) - 1) + [end]
        assert len(pieces) > 4
        assert len({piece.id for piece in pieces}) == 1


def test_a_chat(client, tiny_lm):
    expected = greedy(tiny_lm, [1, 7, 2, 5, 3, 3], 5)  # as the template puts it
    asked = {"model": "m", "messages": messages("w5 w3"), "max_completion_tokens": 5, "temperature": 0}
    found = client.chat.completions.create(**asked)
    assert found.choices[0].message.role == "assistant"
    assert found.choices[0].message.content.split() == words(expected).split()
    usage = {"include_usage": True}
    first, *rest = client.chat.completions.create(**asked, stream=True, stream_options=usage)
    assert first.choices[0].delta.role == "assistant"
    *pieces, end, told = rest
    assert "".join(piece.choices[0].delta.content for piece in pieces) == found.choices[0].message.content
    assert (end.choices[0].finish_reason, end.choices[0].delta.content) == ("length", None)
    assert (told.choices, told.usage.total_tokens) == ([], 11)
    assert all(piece.usage is None for piece in (first, *pieces, end))


def test_a_chat_goes_on_until_the_context_is_full(client):
    found = client.chat.completions.create(model="m", messages=messages("w5"), temperature=0)
    assert (found.choices[0].finish_reason, found.usage.total_tokens) == ("length", CONTEXT + 1)


def test_a_seed_repeats_a_text(client):
    def draw(seed):
        asked = {"prompt": "w5", "max_tokens": 20, "temperature": 9.0, "seed": seed}
        return client.completions.create(model="m", **asked).choices[0].text

    assert draw(1) == draw(1) != draw(2)


def test_errors_in_the_shape_that_the_client_knows(client, complete):
    with pytest.raises(openai.BadRequestError) as refused:
        complete(words([1] * (CONTEXT + 1)))
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "prompt")
    assert f"{CONTEXT + 1} tokens" in refused.value.message
    with pytest.raises(openai.BadRequestError, match="prompt is empty"):
        complete("")
    with pytest.raises(openai.BadRequestError, match="token 999 is none of the"):
        complete([999])
    with pytest.raises(openai.BadRequestError, match="a user speaks first"):
        client.chat.completions.create(model="m", messages=[{"role": "assistant", "content": "w1"}])
    with pytest.raises(openai.BadRequestError) as refused:
        complete("w1", n=2)
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", "n")
    with pytest.raises(openai.NotFoundError) as refused:
        client.completions.create(model="gpt", prompt="w1")
    assert refused.value.code == "model_not_found"


def said(port, request):
    """Status and body of what the server answers to these bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
        line.sendall(request)
        answer = b"".join(iter(lambda: line.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def post(path, body):
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/completions", b"", 400),
        ("/v1/completions", b"\x00\xff{", 400),
        ("/v1/chat/completions", b'{"messages": "x"}', 400),
        ("/v1/nothing", b"{}", 404),
        ("/v1/models", b"{}", 405),
    ],
)
def test_garbage_is_told_so(running, path, body, status):
    found, answer = said(running.port, post(path, body))
    error = json.loads(answer)["error"]
    assert (found, error["type"]) == (status, "invalid_request_error")
    assert error["message"]


def test_a_request_without_an_end(running, monkeypatch):
    monkeypatch.setattr(server, "MAX_BODY", 1000)
    assert said(running.port, post("/v1/completions", b" " * 2000))[0] == 413


def test_eight_clients_at_once_get_what_each_gets_alone(complete, tiny_lm):
    prompts = [[number, 3, number] for number in range(1, 9)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda ids: complete(ids, max_tokens=8).choices[0].text, prompts))
    assert [text.split() for text in found] == [words(greedy(tiny_lm, ids, 8)).split() for ids in prompts]


@pytest.fixture
def held(monkeypatch):
    """No text goes on before this event."""
    event, step = threading.Event(), Writing.step

    def waiting(self):
        assert event.wait(20)
        return step(self)

    monkeypatch.setattr(Writing, "step", waiting)
    yield event
    event.set()


def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_who_does_not_fit_into_the_line_is_told_to_come_again(running, complete, held, monkeypatch):
    turns = running.service.turns
    monkeypatch.setattr(turns, "waiting", 2)
    with ThreadPoolExecutor(3) as pool:
        inside = [pool.submit(complete, "w5", max_tokens=2) for _ in range(3)]
        until(lambda: turns.inside == 3)
        for more in ({}, {"stream": True}):
            with pytest.raises(openai.RateLimitError) as refused:
                complete("w5", **more)
            assert refused.value.code == "queue_full"
        held.set()
        assert {each.result().choices[0].text for each in inside} == {
            complete("w5", max_tokens=2).choices[0].text
        }
    until(lambda: turns.inside == 0)


@pytest.mark.parametrize("stream", [b"true", b"false"])
def test_who_hangs_up_leaves_the_line_and_ends_the_text(running, complete, held, caplog, stream):
    caplog.set_level(logging.INFO, "compress.serve")
    turns = running.service.turns
    body = b'{"prompt": "w5", "max_tokens": 50, "temperature": 0, "stream": ' + stream + b"}"
    lines = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(2)]
    for count, line in enumerate(lines, 1):
        line.sendall(post("/v1/completions", body))
        until(lambda: turns.inside == count)  # noqa: B023
    first, second = lines
    second.close()
    until(lambda: turns.inside == 1)
    connections = running.server.server_state.connections
    left = len(connections) - 1
    first.close()
    until(lambda: len(connections) == left)
    assert turns.inside == 1  # its token is still being computed
    held.set()
    until(lambda: turns.inside == 0)
    until(lambda: len(caplog.messages) == 2)
    assert "1 tokens, gone before its turn" in caplog.messages[0]
    assert "1+1 tokens, gone" in caplog.messages[1]  # at the next token
    assert complete("w5", max_tokens=2).usage.completion_tokens == 2


def test_a_line_for_each_request(complete, caplog):
    caplog.set_level(logging.INFO, "compress.serve")
    complete("w5", max_tokens=2)
    with pytest.raises(openai.BadRequestError):
        complete("")
    until(lambda: len(caplog.messages) == 2)
    assert caplog.messages[0].startswith("POST /v1/completions 200 1+2 tokens, length in 0.")
    assert caplog.messages[1].startswith("POST /v1/completions 400 in 0.")


def test_a_graph_that_fails(running, client, complete, monkeypatch):
    def fail(ids, last=False):
        raise server.CompressError("out of order")

    with monkeypatch.context() as patch:
        patch.setattr(running.service.writer.decoder, "run", fail)
        with pytest.raises(openai.InternalServerError, match="out of order"):
            complete("w5")
        with pytest.raises(openai.APIError, match="out of order"):
            list(complete("w5", stream=True))
    assert complete("w5", max_tokens=2).usage.completion_tokens == 2


@pytest.fixture(scope="module")
def llama(once, language_graphs, language_checkpoints):
    """An artifact of a model as published, with tokens that are parts of characters."""
    checkpoint = language_checkpoints["llama"]
    inputs = read_check_inputs(checkpoint)
    build = lambda out: ship(out / "artifact", language_graphs("llama"), checkpoint, inputs)  # noqa: E731
    return once("artifact-llama", build) / "artifact"


def test_the_tokens_are_those_that_stock_transformers_generates(llama, serving):
    shipped, prompt = Shipped(llama), "the old river sings"
    ids = torch.tensor([shipped.encode(prompt)])
    stock = transformers.AutoModelForCausalLM.from_pretrained(llama / "checkpoint")
    written = stock.generate(ids, max_new_tokens=40, do_sample=False, attention_mask=torch.ones_like(ids))
    expected = shipped.tokenizer.decode(written[0].tolist())
    with (
        serving(shipped) as found,
        openai.OpenAI(base_url=found.url, api_key="none", max_retries=0) as client,
    ):
        asked = {"model": "m", "prompt": prompt, "max_tokens": 40, "temperature": 0}
        text = client.completions.create(**asked).choices[0].text
        pieces = [each.choices[0].text for each in client.completions.create(**asked, stream=True)]
        with pytest.raises(openai.BadRequestError, match="no chat template"):
            client.chat.completions.create(model="m", messages=messages("the"))
    assert prompt + text == expected.rstrip("\N{REPLACEMENT CHARACTER}")
    assert "".join(pieces) == text
    assert np.sum([bool(piece) for piece in pieces]) > 5
