"""An OpenAI-compatible endpoint over one shipped model: an application for an ASGI server.

A text is written in a worker thread, a token at a time. Between tokens the client may be found gone, which
ends its text.
"""

import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio
from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from compress.errors import CompressError
from compress.serve import answers
from compress.serve.asked import Asked, AskedChat, AskedCompletion, for_template, parse
from compress.serve.refused import Refused
from compress.serve.turns import Turns
from compress.serve.writer import PromptTooLong, Writer, Writing

log = logging.getLogger(__name__)
MAX_BODY = 16 * 10**6  # bytes of a request
SEND_SECONDS = 30.0  # a client that takes nothing for so long is gone
_NOTE = "compress.note"  # key of a request's scope: what its line of the log says of the answer


class Service:
    """The model, and whose turn it is."""

    def __init__(self, writer: Writer, waiting: int) -> None:
        self.writer, self.turns = writer, Turns(waiting)
        self.name, self.created = writer.shipped.name, int(time.time())

    async def models(self, request: Request) -> JSONResponse:
        return JSONResponse(answers.models(self.name, self.created))

    async def model(self, request: Request) -> JSONResponse:
        if (name := request.path_params["name"]) != self.name:
            message = f"there is no model {name!r} here, only {self.name!r}"
            raise Refused(404, message, code="model_not_found")
        return JSONResponse(answers.model(self.name, self.created))

    async def completions(self, request: Request) -> "Answer":
        asked = parse(AskedCompletion, await _body(request), self.name)
        return await self._answer(asked, False, lambda: self._tokens(asked.one_prompt()))

    async def chat(self, request: Request) -> "Answer":
        asked = parse(AskedChat, await _body(request), self.name)
        messages = for_template(asked.messages)
        return await self._answer(asked, True, lambda: self.writer.shipped.dialogue(messages))

    def _tokens(self, prompt: str | list[int]) -> list[int]:
        shipped = self.writer.shipped
        if isinstance(prompt, str):
            return shipped.encode(prompt)
        size = shipped.tokenizer.get_vocab_size(with_added_tokens=True)
        if wrong := [token for token in prompt if token not in range(size)]:
            raise Refused(400, f"token {wrong[0]} is none of the {size} that there are", param="prompt")
        return prompt

    async def _answer(self, asked: Asked, chat: bool, read: Callable[[], list[int]]) -> "Answer":
        name = "messages" if chat else "prompt"
        try:
            ids = await run_sync(read)
            self.writer.check(ids)
        except PromptTooLong as error:
            raise Refused(400, _one_line(error), code="context_length_exceeded", param=name) from None
        except CompressError as error:
            raise Refused(400, _one_line(error), param=name) from None
        identity = f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}"
        shape = answers.Shape(
            id=identity, model=self.name, created=int(time.time()), chat=chat, tells_usage=asked.tells_usage
        )
        return Answer(self, asked, ids, shape)


class Answer:
    """One text, written and sent while its client is there. An ASGI application, as Starlette's responses."""

    def __init__(self, service: Service, asked: Asked, ids: Sequence[int], shape: answers.Shape) -> None:
        self.service, self.asked, self.ids, self.shape = service, asked, ids, shape

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[_NOTE] = f"{len(self.ids)} tokens, gone before its turn"

        async def answer() -> None:
            async with self.service.turns.one():
                writing = self.service.writer.start(self.ids, self.asked.wanted())
                try:
                    await (self._stream if self.asked.stream else self._whole)(writing, scope, send)
                finally:
                    scope[_NOTE] = f"{len(self.ids)}+{writing.new_tokens} tokens, {writing.finish or 'gone'}"

        try:
            await _while_there(receive, answer)
        except TimeoutError:
            scope[_NOTE] += ", took nothing"

    async def _whole(self, writing: Writing, scope: Scope, send: Send) -> None:
        text = ""
        try:
            while writing.finish is None:
                text += await run_sync(writing.step)
        except CompressError as error:
            raise Refused(500, _one_line(error)) from error
        body = self.shape.whole(text, writing.finish, _usage(writing))
        await JSONResponse(body)(scope, _nothing, send)

    async def _stream(self, writing: Writing, scope: Scope, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await _send(send, self.shape.opening())
        try:
            while writing.finish is None:
                if piece := await run_sync(writing.step):
                    await _send(send, self.shape.piece(piece))
            last = self.shape.ending(writing.finish, _usage(writing))
        except CompressError as error:
            log.error("%s", error)
            last = answers.event(Refused(500, _one_line(error)).body())
        await _send(send, last, more=False)


def application(service: Service) -> ASGIApp:
    return _Logged(
        Starlette(
            routes=[
                Route("/v1/models", service.models),
                Route("/v1/models/{name:path}", service.model),
                Route("/v1/completions", service.completions, methods=["POST"]),
                Route("/v1/chat/completions", service.chat, methods=["POST"]),
            ],
            exception_handlers={Refused: _refusal, HTTPException: _no_such_place, Exception: _failure},
        )
    )


class _Logged:
    """A line for each request: who, what, how it ended, how long it took."""

    def __init__(self, inner: ASGIApp) -> None:
        self.inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status, start = "gone", time.perf_counter()

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self.inner(scope, receive, noting)
        finally:
            said = [scope.get("method"), scope.get("path"), status, scope.get(_NOTE)]
            words = " ".join(str(each) for each in said if each)
            log.info(
                "%s in %.2f s",
                words.encode("ascii", "backslashreplace").decode(),
                time.perf_counter() - start,
            )


async def _while_there(receive: Receive, work: Callable[[], Awaitable[None]]) -> None:
    """Do the work unless the client hangs up first, which ends it at its next step. Its exceptions come out
    as they are."""
    failed = []

    async def listen() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(listen)
        try:
            await work()
        except Exception as error:  # else they come in a group
            failed.append(error)
        group.cancel_scope.cancel()
    for each in failed:
        raise each


async def _send(send: Send, body: bytes, more: bool = True) -> None:
    """Raises TimeoutError for a client that takes nothing."""
    if body:
        with anyio.fail_after(SEND_SECONDS):
            await send({"type": "http.response.body", "body": body, "more_body": more})


async def _nothing() -> Message:
    await anyio.sleep_forever()
    raise AssertionError


async def _body(request: Request) -> bytes:
    """Raises Refused for one that is too long."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY:
            raise Refused(413, f"a request has at most {MAX_BODY} bytes")
    return bytes(body)


def _usage(writing: Writing) -> dict[str, Any]:
    return answers.usage(writing.prompt_tokens, writing.known_tokens, writing.new_tokens)


def _one_line(error: Exception) -> str:
    return "; ".join(" ".join(line.split()) for line in str(error).splitlines())


def _refusal(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refused)
    return JSONResponse(error.body(), error.status)


def _no_such_place(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    message = f"{error.detail}: {request.method} {request.url.path}"
    return JSONResponse(Refused(error.status_code, message).body(), error.status_code, error.headers)


def _failure(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse(Refused(500, "the server failed; its log says how").body(), 500)
