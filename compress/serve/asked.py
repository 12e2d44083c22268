"""What clients of OpenAI's API ask for: JSON in, what to write out. What would change a text is applied or
refused by name."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from compress.serve.refused import Refused
from compress.serve.writer import Wanted

COMPLETION_TOKENS = 16  # of a completion whose client does not say, as OpenAI has it
# Settings that no text depends on
_IDLE = frozenset(
    {
        *("metadata", "store", "user", "service_tier", "safety_identifier", "prompt_cache_key"),
        *("prompt_cache_retention", "parallel_tool_calls", "verbosity"),
    }
)
# Settings that we lack -> what they are where they are off
_OFF: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "logprobs": (False,),
    "suffix": ("",),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),  # without tools
    "functions": ([],),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
}
_Stop = Annotated[str, Field(min_length=1, max_length=1000)]


class _StreamOptions(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    include_usage: bool | None = None


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """One of a chat. What else it holds, such as name or tool_call_id, goes to the chat template as it is."""

    model_config = ConfigDict(strict=True, extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[_Part] | None = None

    def for_template(self) -> dict[str, Any]:
        """Its content as one text. A developer is what a system was called before."""
        parts = [self.content or ""] if not isinstance(self.content, list) else [p.text for p in self.content]
        role = "system" if self.role == "developer" else self.role
        return {**(self.model_extra or {}), "role": role, "content": "\n".join(parts)}


class Asked(BaseModel):
    """What both kinds of requests have."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    model: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: int | None = None
    stop: _Stop | Annotated[list[_Stop], Field(max_length=16)] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None

    @property
    def most(self) -> int | None:
        """New tokens; None: as many as the context holds."""
        return self.max_tokens

    @property
    def tells_usage(self) -> bool:
        """Whether a stream ends with its numbers of tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def wanted(self) -> Wanted:
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return Wanted(
            max_new_tokens=self.most,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            seed=None if self.seed is None else self.seed % 2**64,
            stop=tuple(stop),
        )


class AskedCompletion(Asked):
    prompt: str | list[str] | list[int] | list[list[int]]

    @property
    def most(self) -> int | None:
        return COMPLETION_TOKENS if self.max_tokens is None else self.max_tokens

    def one_prompt(self) -> str | list[int]:
        """A text, or tokens; raises Refused for several."""
        if not isinstance(self.prompt, list) or (self.prompt and isinstance(self.prompt[0], int)):
            return self.prompt
        if len(self.prompt) != 1:
            raise Refused(
                400, f"one prompt is written after at a time, not {len(self.prompt)}", param="prompt"
            )
        return self.prompt[0]  # type: ignore[return-value]


class AskedChat(Asked):
    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None

    @property
    def most(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


Kind = TypeVar("Kind", bound=Asked)


def parse(kind: type[Kind], body: bytes, model: str) -> Kind:
    """Raises Refused for what is no such request, and for one of another model than `model`."""
    try:
        asked = kind.model_validate_json(body)
    except ValidationError as error:
        raise _wrong(error) from None
    if asked.model is not None and asked.model != model:
        message = f"there is no model {asked.model!r} here, only {model!r}"
        raise Refused(404, message, code="model_not_found", param="model")
    for name, value in (asked.model_extra or {}).items():
        if value is not None and name not in _IDLE and not _is_off(name, value):
            message = f"{name} is not known here" if name not in _OFF else _only(name)
            raise Refused(400, message, code="unsupported_parameter", param=name)
    return asked


def _wrong(error: ValidationError) -> Refused:
    """What is wrong at the deepest place: of a value of several types, with the one that it is most like."""
    deepest = max(error.errors(include_url=False, include_input=False), key=lambda each: len(each["loc"]))
    fields = {name for kind in (AskedCompletion, AskedChat, Message, _Part) for name in kind.model_fields}
    fields |= _StreamOptions.model_fields.keys()
    place = ".".join(str(each) for each in deepest["loc"] if isinstance(each, int) or each in fields)
    return Refused(400, ": ".join(filter(None, (place, deepest["msg"]))), param=place or None)


def _is_off(name: str, value: Any) -> bool:
    return any(value == off and (type(value) is not bool or off is value) for off in _OFF.get(name, ()))


def _only(name: str) -> str:
    return f"{name} is not supported: only {' or '.join(repr(each) for each in _OFF[name])}"


def for_template(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [message.for_template() for message in messages]
