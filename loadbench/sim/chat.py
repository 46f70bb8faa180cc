"""Requests in, frames out: the OpenAI dialect of the simulated server, without I/O, clock or engine.

The tokenizer is as simple as possible: a token is a word between whitespace. A chat costs 4 tokens more, for its
template. The output tokens are words too, one in each event, so splitting the text of a response at its whitespace
gives the number of tokens in `usage`. A response always has `max_tokens` tokens.

The event of the first token follows one with the role and empty content. The event of the last token is followed by
one with the `finish_reason`, then `usage` if it was requested, then `[DONE]`. Each group is written at once.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import orjson

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_MAX_TOKENS = 128
TEMPLATE_TOKENS = 4
_DONE = b"data: [DONE]\n\n"
# The place of the word in the JSON of an event; orjson writes it as six characters that occur nowhere else in it.
_MARK, _MARK_JSON = "\0", b"\\u0000"

# No quotes, no backslashes, no whitespace, ASCII: they go into JSON as they are.
# fmt: off
_WORDS = (
    "the", "a", "one", "some", "each", "every", "this", "that", "river", "stone", "light", "water",
    "paper", "garden", "window", "morning", "evening", "winter", "summer", "letter", "number", "answer", "engine",
    "question", "signal", "paths", "waves", "hills", "doors", "books", "hands", "trees", "clouds", "birds", "turns",
    "keeps", "finds", "brings", "holds", "makes", "gives", "moves", "opens", "follows", "carries", "between", "under", "over",
    "near", "beyond", "after", "before", "again", "often", "slowly", "quickly", "quietly", "always", "never", "almost",
    "bright", "small", "large", "old", "new", "early", "late", "and", "or", "but", "so", "then",
)
# fmt: on


class Route(Enum):
    """The two endpoints; the value is the path."""

    CHAT = "/v1/chat/completions"
    COMPLETIONS = "/v1/completions"


class Refusal(Exception):  # noqa: N818 - it is a response, not an error of ours
    """A refused request: the HTTP status and the message of the error object."""

    def __init__(self, status: int, message: str, *, code: str | None = None, allow: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.allow = allow

    def body(self) -> bytes:
        """The JSON error object."""
        kind = "not_found_error" if self.status == 404 else "invalid_request_error"
        return orjson.dumps({"error": {"message": self.message, "type": kind, "param": None, "code": self.code}})


class _Part(msgspec.Struct):
    type: str
    text: str = ""


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None

    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return " ".join(part.text for part in self.content or ())


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Body(msgspec.Struct, kw_only=True):
    """The fields that both endpoints have; other fields are allowed and ignored."""

    model: str
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    n: int | None = None


class _ChatBody(_Body, kw_only=True):
    messages: list[_Message]


class _CompletionsBody(_Body, kw_only=True):
    prompt: str


_B = TypeVar("_B", bound=_Body)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest:
    """A valid request."""

    route: Route
    model: str
    text: str
    prompt_tokens: int
    max_tokens: int
    stream: bool
    include_usage: bool


def count_tokens(text: str) -> int:
    """The simulated tokenizer: words between whitespace."""
    return len(text.split())


def parse_request(route: Route, body: bytes, *, models: Sequence[str], context: int) -> CompletionRequest:
    """The request in this body. Raises `Refusal` with the reason if it is not valid."""
    fields: _Body
    if route is Route.CHAT:
        fields = chat = _decode(body, _ChatBody)
        if not chat.messages:
            raise Refusal(400, "'messages' is empty")
        text = "\n".join(message.text() for message in chat.messages)
        prompt_tokens = count_tokens(text) + TEMPLATE_TOKENS
    else:
        fields = completion = _decode(body, _CompletionsBody)
        text = completion.prompt
        prompt_tokens = count_tokens(text)
        if not prompt_tokens:
            raise Refusal(400, "'prompt' is empty")

    if fields.model not in models:
        known = ", ".join(models)
        raise Refusal(404, f"The model '{fields.model}' does not exist; there are: {known}", code="model_not_found")
    if fields.n not in {None, 1}:
        raise Refusal(400, "'n' must be 1: one response per request")
    max_tokens = fields.max_tokens if fields.max_completion_tokens is None else fields.max_completion_tokens
    if max_tokens is None:
        max_tokens = DEFAULT_MAX_TOKENS
    if max_tokens < 1:
        raise Refusal(400, f"'max_tokens' must be at least 1, not {max_tokens}")
    if prompt_tokens + max_tokens > context:
        raise Refusal(
            400,
            f"This model's maximum context length is {context} tokens. However, you requested "
            f"{prompt_tokens + max_tokens} tokens ({prompt_tokens} in the prompt, {max_tokens} in the completion).",
            code="context_length_exceeded",
        )
    return CompletionRequest(
        route=route,
        model=fields.model,
        text=text,
        prompt_tokens=prompt_tokens,
        max_tokens=max_tokens,
        stream=bool(fields.stream),
        include_usage=fields.stream_options is not None and bool(fields.stream_options.include_usage),
    )


def _decode(body: bytes, kind: type[_B]) -> _B:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(400, f"The body cannot be read: {error}") from None


class CompletionResponse:
    """The response to one request: the same words for the same prompt and seed, at any time."""

    def __init__(self, request: CompletionRequest, *, number: int, created: int, seed: int) -> None:
        self._request = request
        self._number = number
        self._created = created
        self._rng = random.Random(f"{seed}/{zlib.crc32(request.text.encode(errors='replace'))}")
        self._words: list[str] = []
        self._before, self._after = self._event(_MARK).split(_MARK_JSON)

    def token(self, *, last: bool) -> bytes:
        """The next token as it is streamed, with the frames before the first one and after the last."""
        word = self._next_word()
        event = self._before + word.encode() + self._after
        if len(self._words) == 1 and self._chat:
            event = self._event("", role="assistant") + event
        return event + self._close() if last else event

    def whole(self) -> bytes:
        """The complete response as one JSON body."""
        while len(self._words) < self._request.max_tokens:
            self._next_word()
        text = "".join(self._words)
        message = {"message": {"role": "assistant", "content": text}} if self._chat else {"text": text}
        choice = {"index": 0, **message, "logprobs": None, "finish_reason": "length"}
        return orjson.dumps(self._frame("chat.completion", [choice], usage=self._usage()))

    @property
    def _chat(self) -> bool:
        return self._request.route is Route.CHAT

    def _next_word(self) -> str:
        word = self._rng.choice(_WORDS)
        self._words.append(f" {word}" if self._words else word)
        return self._words[-1]

    def _event(self, text: str, *, role: str | None = None, finish: str | None = None) -> bytes:
        if self._chat:
            delta = {} if finish else {"role": role, "content": text} if role else {"content": text}
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        else:
            choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
        return _sse(self._frame("chat.completion.chunk", [choice]))

    def _close(self) -> bytes:
        closing = self._event("", finish="length")
        if self._request.include_usage:
            closing += _sse(self._frame("chat.completion.chunk", [], usage=self._usage()))
        return closing + _DONE

    def _frame(self, kind: str, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return {
            "id": f"{'chatcmpl' if self._chat else 'cmpl'}-sim-{self._number}",
            "object": kind if self._chat else "text_completion",
            "created": self._created,
            "model": self._request.model,
            "system_fingerprint": "simulated",
            "choices": choices,
            **more,
        }

    def _usage(self) -> dict[str, int]:
        prompt, completion = self._request.prompt_tokens, len(self._words)
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _sse(frame: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(frame) + b"\n\n"
