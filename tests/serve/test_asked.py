"""Requests of OpenAI's API: read, or refused by name."""

import json

import pytest

from compress.serve.asked import AskedChat, AskedCompletion, for_template, parse
from compress.serve.refused import Refused
from compress.serve.writer import Wanted

HELLO = [{"role": "user", "content": "hello"}]


def chat(**more):
    return parse(AskedChat, json.dumps({"messages": HELLO, **more}).encode(), "m")


def completion(**more):
    return parse(AskedCompletion, json.dumps({"prompt": "once", **more}).encode(), "m")


def test_what_a_client_that_says_nothing_gets():
    assert chat().wanted() == Wanted(max_new_tokens=None, temperature=1.0, top_p=1.0, seed=None, stop=())
    assert completion().wanted().max_new_tokens == 16
    assert not chat().stream
    assert not chat().tells_usage


def test_settings_of_a_text():
    asked = chat(model="m", max_tokens=7, temperature=0, top_p=0.5, seed=-1, stop="a", stream=True)
    assert asked.wanted() == Wanted(max_new_tokens=7, temperature=0.0, top_p=0.5, seed=2**64 - 1, stop=("a",))
    assert asked.stream
    assert chat(max_tokens=7, max_completion_tokens=5).wanted().max_new_tokens == 5
    assert chat(stop=["a", "b"]).wanted().stop == ("a", "b")
    assert chat(stream_options={"include_usage": True}).tells_usage


def test_what_changes_no_text_is_taken():
    chat(
        n=1, presence_penalty=0, frequency_penalty=0.0, logit_bias={}, tools=[], tool_choice="auto", user="x"
    )
    chat(
        response_format={"type": "text"},
        logprobs=None,
        functions=None,
        n=None,
        store=False,
        metadata={"a": 1},
    )
    completion(echo=False, best_of=1, suffix="", logprobs=None)


@pytest.mark.parametrize(
    ("more", "param", "said"),
    [
        ({"n": 2}, "n", "only 1"),
        ({"n": True}, "n", "only 1"),
        ({"presence_penalty": 0.5}, "presence_penalty", "only 0"),
        ({"tools": [{"type": "function"}]}, "tools", "not supported"),
        ({"response_format": {"type": "json_object"}}, "response_format", "not supported"),
        ({"logprobs": True}, "logprobs", "only False"),
        ({"top_k": 5}, "top_k", "not known"),
        ({"temperature": -1}, "temperature", "greater than or equal to 0"),
        ({"temperature": "hot"}, "temperature", "valid number"),
        ({"top_p": 1.5}, "top_p", "less than or equal to 1"),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": "9"}, "max_tokens", "valid integer"),
        ({"stop": ""}, "stop", "at least 1 character"),
        ({"stop": ["a", ""]}, "stop.1", "at least 1 character"),
        ({"messages": []}, "messages", "at least 1 item"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages.0.role", "'user'"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content", "valid"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages.0.content.0.type",
            "'text'",
        ),
    ],
)
def test_what_is_refused_by_name(more, param, said):
    with pytest.raises(Refused, match=said) as refused:
        chat(**more)
    error = refused.value.body()["error"]
    assert (refused.value.status, error["param"], error["type"]) == (400, param, "invalid_request_error")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"messages": 1}', b"[" * 100000, b'{"temperature": NaN}',
     b'{"messages": [{"role": "user", "content": "\\ud800"}]}'],
)  # fmt: skip
def test_garbage(body):
    with pytest.raises(Refused) as refused:
        parse(AskedChat, body, "m")
    assert refused.value.status == 400


def test_another_model():
    with pytest.raises(Refused, match="no model 'gpt' here, only 'm'") as refused:
        chat(model="gpt")
    assert (refused.value.status, refused.value.code) == (404, "model_not_found")


def test_messages_as_stock_clients_send_them():
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    asked = chat(
        messages=[
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": parts, "name": "ann"},
            {"role": "assistant", "content": None, "tool_calls": calls},
            {"role": "tool", "content": "5", "tool_call_id": "1"},
        ]
    )
    assert for_template(asked.messages) == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "one\ntwo", "name": "ann"},
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "content": "5", "tool_call_id": "1"},
    ]


@pytest.mark.parametrize(
    ("prompt", "read"),
    [("a", "a"), (["a"], "a"), ([1, 2], [1, 2]), ([[1, 2]], [1, 2]), ([], None), (["a", "b"], None)],
)
def test_prompts(prompt, read):
    asked = completion(prompt=prompt)
    if read is None:
        with pytest.raises(Refused, match="one prompt"):
            asked.one_prompt()
    else:
        assert asked.one_prompt() == read
