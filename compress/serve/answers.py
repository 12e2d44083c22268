"""Answers in the shapes of OpenAI's API, whole and in pieces."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What all of one answer have in common."""

    id: str
    model: str
    created: int  # seconds since 1970
    chat: bool
    tells_usage: bool = False  # the last piece of a stream does

    def whole(self, text: str, finish: str, usage: Mapping[str, Any]) -> dict[str, Any]:
        """`finish`: why it ended, stop or length."""
        part = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        kind = "chat.completion" if self.chat else "text_completion"
        return {**self._head(kind), "choices": [self._choice(part, finish)], "usage": dict(usage)}

    def opening(self) -> bytes:
        """The first event of a stream: of a chat, whose turn it is."""
        return self._event({"delta": {"role": "assistant", "content": ""}}, None) if self.chat else b""

    def piece(self, text: str) -> bytes:
        return self._event({"delta": {"content": text}} if self.chat else {"text": text}, None)

    def ending(self, finish: str, usage: Mapping[str, Any]) -> bytes:
        """The last events of a stream."""
        last = self._event({"delta": {}} if self.chat else {"text": ""}, finish)
        told = event({**self._piece_head(), "choices": [], "usage": dict(usage)}) if self.tells_usage else b""
        return last + told + DONE

    def _event(self, part: Mapping[str, Any], finish: str | None) -> bytes:
        none = {"usage": None} if self.tells_usage else {}
        return event({**self._piece_head(), "choices": [self._choice(part, finish)], **none})

    def _piece_head(self) -> dict[str, Any]:
        return self._head("chat.completion.chunk" if self.chat else "text_completion")

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _choice(self, part: Mapping[str, Any], finish: str | None) -> dict[str, Any]:
        return {"index": 0, **part, "logprobs": None, "finish_reason": finish}


def event(content: Mapping[str, Any]) -> bytes:
    """One of a stream (server-sent events)."""
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n".encode()


def usage(prompt_tokens: int, known_tokens: int, new_tokens: int) -> dict[str, Any]:
    """Numbers of tokens; `known_tokens` of the prompt's were not read again."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": new_tokens,
        "total_tokens": prompt_tokens + new_tokens,
        "prompt_tokens_details": {"cached_tokens": known_tokens},
    }


def models(name: str, created: int) -> dict[str, Any]:
    return {"object": "list", "data": [model(name, created)]}


def model(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "compress"}
